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

/* four bytes; no arithmetic crosses from one to the next */
INLINE uint32_t word_of(const uint8_t *at) {
    uint32_t word;
    memcpy(&word, at, 4);
    return word;
}

INLINE void put_word(uint8_t *at, uint32_t word) { memcpy(at, &word, 4); }

INLINE void add_word(uint8_t *at, uint32_t word) { put_word(at, word_of(at) | word); }

/* the codes of one block: 32 or 256 */
INLINE void file_codes(const int F, const uint8_t *block, uint8_t *codes) {
    if (F == Q8_0) {
        for (int k = 0; k < 32; k++) codes[k] = block[2 + k] ^ 128;
    } else if (!IS_K(F)) {
        const uint8_t *low = block + FILE_BYTES(F) - 16;
        const uint32_t fifth = BITS(F) == 5 ? word_of(block + (HAS_LOW(F) ? 4 : 2)) : 0;
        for (int c = 0; c < 8; c++) {
            uint32_t four = word_of(low + c % 4 * 4) >> (c / 4 * 4) & 0x0f0f0f0fu;
            if (BITS(F) == 5) /* bit i of four goes to byte i */
                four |= ((fifth >> (4 * c) & 15) * 0x00204081u & 0x01010101u) << 4;
            put_word(codes + 4 * c, four);
        }
    } else if (F == Q6_K) {
        for (int half = 0; half < 2; half++)
            for (int run = 0; run < 4; run++)
                for (int k = 0; k < 32; k++) {
                    const uint8_t low = block[64 * half + 32 * (run % 2) + k] >> (run / 2 * 4) & 15;
                    const uint8_t high = block[128 + 32 * half + k] >> (2 * run) & 3;
                    codes[128 * half + 32 * run + k] = (uint8_t)(low | high << 4);
                }
    } else {
        const uint8_t *low = block + FILE_BYTES(F) - 128, *fifth = block + 16;
        for (int run = 0; run < 8; run++)
            for (int k = 0; k < 32; k++) {
                uint8_t code = low[run / 2 * 32 + k] >> (run % 2 * 4) & 15;
                if (F == Q5_K) code |= (fifth[k] >> run & 1) << 4;
                codes[32 * run + k] = code;
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
        for (int c = 0; c < 8; c++) { /* four codes of a byte each at a time */
            const uint32_t four = word_of(codes + 32 * u + 4 * c);
            if (F == Q8_0) {
                put_word(at + 64 * c, four ^ 0x80808080u);
                continue;
            }
            add_word(at + 64 * (c / 2), (four & 0x0f0f0f0fu) << (c % 2 * 4));
            if (BITS(F) == 5) add_word(at + 256, (four >> 4 & 0x01010101u) << c);
            if (BITS(F) == 6) add_word(at + 256 + 64 * (c / 4), (four >> 4 & 0x03030303u) << (c % 4 * 2));
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
