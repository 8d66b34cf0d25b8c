#!/bin/sh
# Prints what numba calls this processor, of those that loops are compiled for in the image: any of its kind, or one with
# AVX2 (nearly all servers since 2013), for which the catalogue's products take less than half the time (docs/log.md).
for flag in avx2 bmi2 f16c fma movbe; do
    grep -qw "$flag" /proc/cpuinfo || { echo generic; exit; }
done
echo x86-64-v3
