#!/bin/sh
# Prints what numba calls this processor, of those that loops are compiled for in the image: any of its kind, or one with
# AVX2 (all servers since 2013 or so), for which they take half the time.
for flag in avx2 bmi2 f16c fma movbe; do
    grep -qw "$flag" /proc/cpuinfo || { echo generic; exit; }
done
echo x86-64-v3
