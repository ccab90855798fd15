/* From the blocks of a GGUF file to tiles: what tiles.to_tiles does, without temporaries. */
#ifndef NAMM_PACK_H
#define NAMM_PACK_H

#include "codes.h"

#define FILE_BYTES(F)                                                                              \
    ((F) == Q4_0   ? 18                                                                            \
     : (F) == Q4_1 ? 20                                                                            \
     : (F) == Q5_0 ? 22                                                                            \
     : (F) == Q5_1 ? 24                                                                            \
     : (F) == Q8_0 ? 34                                                                            \
     : (F) == Q4_K ? 144                                                                           \
     : (F) == Q5_K ? 176                                                                           \
                   : 210)

/* the codes of one block: 32 or 256 */
INLINE void file_codes(const int F, const uint8_t *block, uint8_t *codes) {
    if (F == Q8_0) {
        for (int k = 0; k < 32; k++) codes[k] = block[2 + k] ^ 128;
    } else if (!IS_K(F)) {
        const uint8_t *low = block + FILE_BYTES(F) - 16, *fifth = block + (HAS_LOW(F) ? 4 : 2);
        for (int k = 0; k < 16; k++) {
            codes[k] = low[k] & 15;
            codes[16 + k] = low[k] >> 4;
        }
        if (BITS(F) == 5)
            for (int k = 0; k < 32; k++) codes[k] |= ((fifth[k / 8] >> (k % 8)) & 1) << 4;
    } else if (F == Q6_K) {
        for (int k = 0; k < 256; k++) {
            const int half = k / 128, run = k / 32 % 4, at = k % 32;
            const uint8_t low = block[64 * half + 32 * (run % 2) + at];
            const uint8_t high = block[128 + 32 * half + at] >> (2 * run) & 3;
            codes[k] = (uint8_t)((run < 2 ? low & 15 : low >> 4) | high << 4);
        }
    } else {
        const uint8_t *low = block + FILE_BYTES(F) - 128, *fifth = block + 16;
        for (int k = 0; k < 256; k++) {
            const uint8_t both = low[k / 64 * 32 + k % 32];
            codes[k] = k / 32 % 2 ? both >> 4 : both & 15;
            if (F == Q5_K) codes[k] |= ((fifth[k % 32] >> (k / 32)) & 1) << 4;
        }
    }
}

/* scales of row `r` into a tile's block */
INLINE void place_scales(const int F, const uint8_t *block, uint8_t *tile, int r) {
    memcpy(tile + 2 * r, F == Q6_K ? block + 208 : block, 2);
    if (HAS_LOW(F)) memcpy(tile + 32 + 2 * r, block + 2, 2);
    if (!IS_K(F)) return;
    for (int u = 0; u < 8; u++) {
        uint8_t *unit = tile + HEAD_BYTES(F) + u * UNIT_BYTES(F);
        if (F == Q6_K) {
            unit[r] = block[192 + 2 * u];
            unit[16 + r] = block[193 + 2 * u];
            continue;
        }
        const uint8_t *packed = block + 4; /* eight 6-bit scales and minima in 12 bytes */
        unit[r] = u < 4 ? packed[u] & 63 : (packed[u + 4] & 15) | (packed[u - 4] >> 6) << 4;
        unit[16 + r] = u < 4 ? packed[u + 4] & 63 : packed[u + 4] >> 4 | (packed[u] >> 6) << 4;
    }
}

/* codes of row `r` into a tile's block, whose codes are zeros before */
INLINE void place_codes(const int F, const uint8_t *codes, uint8_t *tile, int r) {
    for (int u = 0; u < UNITS(F); u++) {
        uint8_t *at = tile + HEAD_BYTES(F) + u * UNIT_BYTES(F) + SCALE_BYTES(F) + 4 * r;
        for (int c = 0; c < 8; c++)
            for (int j = 0; j < 4; j++) {
                const uint8_t code = codes[32 * u + 4 * c + j];
                if (F == Q8_0) {
                    at[64 * c + j] = code ^ 128;
                    continue;
                }
                at[64 * (c / 2) + j] |= (code & 15) << (c % 2 * 4);
                if (BITS(F) == 5) at[256 + j] |= (code >> 4) << c;
                if (BITS(F) == 6) at[256 + 64 * (c / 4) + j] |= (code >> 4) << (c % 4 * 2);
            }
    }
}

/* rows first .. first + 15 (fewer at the end) of a matrix, `stride` bytes a row, into one tile of
 * zeros */
INLINE void pack_tile(const int F, const uint8_t *raw, int64_t stride, int count, int64_t columns,
                      uint8_t *tile) {
    uint8_t codes[256];
    for (int64_t b = 0; b < columns / (32 * UNITS(F)); b++, tile += BLOCK_BYTES(F))
        for (int r = 0; r < count; r++) {
            const uint8_t *block = raw + r * stride + b * FILE_BYTES(F);
            file_codes(F, block, codes);
            place_scales(F, block, tile, r);
            place_codes(F, codes, tile, r);
        }
}
#endif
