// Written by tools/core_tables.py, which says what these are.
#pragma once
#include <cstdint>

namespace afa {

template <class T> struct Tables;
template <> struct Tables<double> {
    using Bits = uint64_t;
    static constexpr int MANTISSA = 52;
    static constexpr Bits ONE = 4607182418800017408u, ROOT_HALF = 4604544271217802189u;
    static constexpr double ROUNDING = 0x1.8000000000000p+52;
    // 1 / m in the middle of an entry
    alignas(64) static constexpr double INVERSES[16] = {0x1.f07c1f07c1f08p-1, 0x1.d41d41d41d41dp-1, 0x1.bacf914c1bad0p-1, 0x1.a41a41a41a41ap-1, 0x1.8f9c18f9c18fap-1, 0x1.7d05f417d05f4p-1, 0x1.6c16c16c16c17p-1, 0x1.5c9882b931057p-1, 0x1.4e5e0a72f0539p-1, 0x1.4141414141414p-1, 0x1.3521cfb2b78c1p-1, 0x1.29e4129e4129ep-1, 0x1.1f7047dc11f70p-1, 0x1.15b1e5f75270dp-1, 0x1.0c9714fbcda3bp-1, 0x1.0410410410410p-1};
    // -log2 of them
    alignas(64) static constexpr double LOGARITHMS[16] = {0x1.6bad3758efd81p-5, 0x1.08c588cda79e5p-3, 0x1.acf5e2db4ec91p-3, 0x1.24407ab0e073ap-2, 0x1.6e221cd9d0cddp-2, 0x1.b47ebf73882a1p-2, 0x1.f7a8568cb06cep-2, 0x1.1bf311e95d00ep-1, 0x1.3abb3faa02168p-1, 0x1.5848226989d34p-1, 0x1.74b1fd64e0754p-1, 0x1.900e6160002cep-1, 0x1.aa708f58014d4p-1, 0x1.c3e9ca2e1a055p-1, 0x1.dc899ab3ff56cp-1, 0x1.f45e08bcf0656p-1};
    // 2^(k/16) less the bits that k adds
    alignas(64) static constexpr double ROOTS[16] = {0x1.0000000000000p+0, 0x1.fb5586cf9890fp-1, 0x1.f72b83c7d517bp-1, 0x1.f387a6e756238p-1, 0x1.f06fe0a31b715p-1, 0x1.edea64c123422p-1, 0x1.ebfdad5362a27p-1, 0x1.eab07dd485429p-1, 0x1.ea09e667f3bcdp-1, 0x1.ea11473eb0187p-1, 0x1.eace5422aa0dbp-1, 0x1.ec49182a3f090p-1, 0x1.ee89f995ad3adp-1, 0x1.f199bdd85529cp-1, 0x1.f5818dcfba487p-1, 0x1.fa4afa2a490dap-1};
    static constexpr double LOG_TABLE[] = {0x1.71547652b82f9p+0, -0x1.71547652b82d4p-1, 0x1.ec709dc444ac4p-2, -0x1.71547653cdb3ap-2, 0x1.2776b8371e76ap-2, -0x1.ec707e8cdbcadp-3, 0x1.a6bbb774fb38fp-3, -0x1.71fade1669d98p-3};
    static constexpr double EXP_TABLE[] = {0x1.0000000000000p+0, 0x1.62e42fefa39fdp-1, 0x1.ebfbdff82c599p-3, 0x1.c6b08d6e8a383p-5, 0x1.3b2ab6fac72edp-7, 0x1.5d89be4c1925cp-10, 0x1.430a75b93923dp-13};
    static constexpr double LOG_SERIES[] = {0x1.71547652b82ffp+1, 0x1.ec709dc39c9f8p-1, 0x1.2776c516a782ep-1, 0x1.a61756791cbdep-2, 0x1.484fab9e6483ep-2, 0x1.0bb7cd311d51fp-2, 0x1.f1836bf60c3c8p-3};
    static constexpr double EXP_SERIES[] = {0x1.0000000000000p+0, 0x1.62e42fefa39efp-1, 0x1.ebfbdff82c5aep-3, 0x1.c6b08d704a0d0p-5, 0x1.3b2ab6fb9f1a3p-7, 0x1.5d87fe78a2291p-10, 0x1.430913112cb54p-13, 0x1.ffcbfc75f302bp-17, 0x1.62bfc2c7ae40cp-20, 0x1.b524db38fd1f6p-24, 0x1.e6228bff026cep-28, 0x1.ea044321bc0a7p-32};
    static constexpr double SINE[] = {0x1.0000000000000p+0, -0x1.5555555555543p-3, 0x1.111111110f3dep-7, -0x1.a01a019ba992bp-13, 0x1.71de3530d89d0p-19, -0x1.ae5e3809a7cd5p-26, 0x1.5d877293e2d14p-33};
    static constexpr double COSINE[] = {0x1.0000000000000p+0, -0x1.0000000000000p-1, 0x1.5555555555536p-5, -0x1.6c16c16c13a08p-10, 0x1.a01a019b1e55ep-16, -0x1.27e4f7280e022p-22, 0x1.1ee96d128a288p-29, -0x1.8f762ee14071fp-37};
};
template <> struct Tables<float> {
    using Bits = uint32_t;
    static constexpr int MANTISSA = 23;
    static constexpr Bits ONE = 1065353216u, ROOT_HALF = 1060439283u;
    static constexpr float ROUNDING = 0x1.8000000000000p+23f;
    // 1 / m in the middle of an entry
    alignas(64) static constexpr float INVERSES[16] = {0x1.f07c200000000p-1f, 0x1.d41d420000000p-1f, 0x1.bacf920000000p-1f, 0x1.a41a420000000p-1f, 0x1.8f9c180000000p-1f, 0x1.7d05f40000000p-1f, 0x1.6c16c20000000p-1f, 0x1.5c98820000000p-1f, 0x1.4e5e0a0000000p-1f, 0x1.4141420000000p-1f, 0x1.3521d00000000p-1f, 0x1.29e4120000000p-1f, 0x1.1f70480000000p-1f, 0x1.15b1e60000000p-1f, 0x1.0c97140000000p-1f, 0x1.0410420000000p-1f};
    // -log2 of them
    alignas(64) static constexpr float LOGARITHMS[16] = {0x1.6bad200000000p-5f, 0x1.08c5880000000p-3f, 0x1.acf5de0000000p-3f, 0x1.24407a0000000p-2f, 0x1.6e22200000000p-2f, 0x1.b47ec00000000p-2f, 0x1.f7a8540000000p-2f, 0x1.1bf3140000000p-1f, 0x1.3abb400000000p-1f, 0x1.5848200000000p-1f, 0x1.74b1fc0000000p-1f, 0x1.900e620000000p-1f, 0x1.aa708e0000000p-1f, 0x1.c3e9ca0000000p-1f, 0x1.dc899e0000000p-1f, 0x1.f45e060000000p-1f};
    // 2^(k/16) less the bits that k adds
    alignas(64) static constexpr float ROOTS[16] = {0x1.0000000000000p+0f, 0x1.fb55860000000p-1f, 0x1.f72b840000000p-1f, 0x1.f387a60000000p-1f, 0x1.f06fe00000000p-1f, 0x1.edea640000000p-1f, 0x1.ebfdae0000000p-1f, 0x1.eab07e0000000p-1f, 0x1.ea09e60000000p-1f, 0x1.ea11480000000p-1f, 0x1.eace540000000p-1f, 0x1.ec49180000000p-1f, 0x1.ee89fa0000000p-1f, 0x1.f199be0000000p-1f, 0x1.f5818e0000000p-1f, 0x1.fa4afa0000000p-1f};
    static constexpr float LOG_TABLE[] = {0x1.7154760000000p+0f, -0x1.7154740000000p-1f, 0x1.ecba880000000p-2f, -0x1.71a1780000000p-2f};
    static constexpr float EXP_TABLE[] = {0x1.0000000000000p+0f, 0x1.62e4300000000p-1f, 0x1.ec00cc0000000p-3f, 0x1.c6b3f80000000p-5f};
    static constexpr float LOG_SERIES[] = {0x1.7154760000000p+1f, 0x1.ec70e60000000p-1f, 0x1.2747200000000p-1f, 0x1.ba18380000000p-2f};
    static constexpr float EXP_SERIES[] = {0x1.0000000000000p+0f, 0x1.62e4300000000p-1f, 0x1.ebfbe00000000p-3f, 0x1.c6aecc0000000p-5f, 0x1.3b29d80000000p-7f, 0x1.5f48c80000000p-10f, 0x1.446c7e0000000p-13f};
};

}  // namespace afa
