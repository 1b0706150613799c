/* Pillow's resize in planes: two passes with fixed-point weights of BITS bits of fraction. See compiled.py. */
#include <stdint.h>
#include <string.h>
#define ROWS 4    /* resized at once */
#define WIDE 8    /* pixels of a column step; scratch rows are padded to it */
#define BITS 22
#define HALF (1 << (BITS - 1))
typedef int v4 __attribute__((vector_size(16), may_alias));
typedef int v8 __attribute__((vector_size(32), may_alias));
typedef uint8_t b4 __attribute__((vector_size(4)));
typedef uint8_t b8 __attribute__((vector_size(8)));
typedef uint8_t b16 __attribute__((vector_size(16)));

static inline b8 levels(v8 x) {
    x >>= BITS;
    x &= ~(x >> 31);
    v8 over = x > 255;
    return __builtin_convertvector((x & ~over) | (over & 255), b8);
}

/* four pixels of three bytes each, widened to four integers a pixel, `ROWS` apart */
static inline void widen(const uint8_t *in, v4 *out) {
    b16 x;
    memcpy(&x, in, 16);
    x = __builtin_shufflevector(x, x, 0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 8, 9, 10, 11, 11);
    b4 pixel[4];
    memcpy(pixel, &x, 16);
    for (int k = 0; k < 4; k++) out[ROWS * k] = __builtin_convertvector(pixel[k], v4);
}

static void along_rows(const uint8_t *const *in, uint8_t *const *out, v4 *wide, long columns, long taps,
                       const int *first, const int *count, const int *weights) {
    const long from = first[0], to = first[columns - 1] + count[columns - 1];
    for (int r = 0; r < ROWS; r++)
        for (long x = from; x < to; x += 4) widen(in[r] + 3 * x, wide + ROWS * (x - from) + r);
    for (long x = 0; x < columns; x++) {
        const int *w = weights + x * taps, n = count[x];
        const v8 *p = (const v8 *)(wide + ROWS * (first[x] - from));
        v8 a = (v8){} + HALF, b = a;
        for (int k = 0; k < n; k++) { a += p[2 * k] * w[k]; b += p[2 * k + 1] * w[k]; }
        const b8 two[2] = {levels(a), levels(b)};
        for (int r = 0; r < ROWS; r++) memcpy(out[r] + 4 * x, (const uint8_t *)two + 4 * r, 4);
    }
}

static void along_columns(const uint8_t *in, long stride, uint8_t *out, long plane, long columns, int n, const int *w) {
    for (long x = 0; x < columns; x += WIDE) {
        int sum[4 * WIDE];
        uint8_t done[4 * WIDE];
        for (int i = 0; i < 4 * WIDE; i++) sum[i] = HALF;
        for (int k = 0; k < n; k++)
            for (int i = 0; i < 4 * WIDE; i++) sum[i] += in[k * stride + 4 * x + i] * w[k];
        for (int i = 0; i < 4 * WIDE; i++) { int s = sum[i] >> BITS; done[i] = s < 0 ? 0 : s > 255 ? 255 : s; }
        const int here = columns - x < WIDE ? columns - x : WIDE;
        for (int c = 0; c < 3; c++)
            for (int i = 0; i < here; i++) out[c * plane + x + i] = done[4 * i + c];
    }
}

/* `scratch` holds, each on a multiple of 64 bytes: a padded copy of the last row, widened pixels, resized rows */
void resize(const uint8_t *in, long stride, long width, long top, long bottom, uint8_t *scratch,
            long columns, long xtaps, const int *xfirst, const int *xcount, const int *xweights,
            long rows, long ytaps, const int *yfirst, const int *ycount, const int *yweights, uint8_t *out) {
    const long line = 4 * ((columns + WIDE - 1) / WIDE * WIDE);
    uint8_t *last = scratch;
    v4 *wide = (v4 *)(last + (3 * width + 16 + 63) / 64 * 64);
    uint8_t *resized = (uint8_t *)(wide + ROWS * (width + 4));
    memcpy(last, in + (bottom - 1) * stride, 3 * width);
    for (long y = top; y < bottom; y += ROWS) {
        const uint8_t *from[ROWS];
        uint8_t *to[ROWS];
        for (int r = 0; r < ROWS; r++) {
            const long row = y + r < bottom - 1 ? y + r : bottom - 1;
            from[r] = row < bottom - 1 ? in + row * stride : last;
            to[r] = resized + (row - top) * line;
        }
        along_rows(from, to, wide, columns, xtaps, xfirst, xcount, xweights);
    }
    for (long y = 0; y < rows; y++)
        along_columns(resized + (yfirst[y] - top) * line, line, out + y * columns, rows * columns, columns, ycount[y],
                      yweights + y * ytaps);
}
