/* What this x86 CPU and its operating system can run: cpuid, and xgetbv for the registers the system saves. */
#include <cpuid.h>

#include "kernels/kernels.h"

enum {
    LEAF1_ECX_OSXSAVE = 1 << 27, LEAF1_ECX_AVX = 1 << 28, LEAF1_ECX_F16C = 1 << 29,
    LEAF7_EBX_AVX2 = 1 << 5,
    LEAF7_ECX_VNNI = 1 << 11,
    XCR0_YMM = 0x06, XCR0_ZMM = 0xe6,
};
#define LEAF7_EBX_AVX512 (1u << 16 | 1u << 17 | 1u << 30 | 1u << 31) /* F, DQ, BW, VL */

static uint32_t xcr0(void)
{
    uint32_t eax, edx;
    __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0)); /* the intrinsic would need -mxsave */
    return eax;
}

uint32_t bb_cpu_features(void)
{
    const uint32_t leaf1 = LEAF1_ECX_OSXSAVE | LEAF1_ECX_AVX | LEAF1_ECX_F16C;
    uint32_t a, b, c, d, features = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & leaf1) != leaf1) return 0;
    const uint32_t saved = xcr0();
    if ((saved & XCR0_YMM) != XCR0_YMM || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if (!(b & LEAF7_EBX_AVX2)) return 0;
    features |= BB_CPU_AVX2;
    if ((saved & XCR0_ZMM) == XCR0_ZMM && (b & LEAF7_EBX_AVX512) == LEAF7_EBX_AVX512 && (c & LEAF7_ECX_VNNI))
        features |= BB_CPU_AVX512;
    return features;
}
