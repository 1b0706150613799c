/* Adafactor's step (1804.04235, section 3) in four passes over memory. See factored.py. */
#include <math.h>
/* One tensor (rows, columns, inner): P parameter, G gradient, R (rows, inner) and C (columns, inner) the moments.
   Q: room for (columns + 3 * 64) * inner. A row is walked in strips of inner * lanes, a whole number of columns, so
   that what depends on the row repeats from strip to strip. */
void step(float *restrict P, const float *restrict G, float *restrict R, float *restrict C, float *restrict Q,
          long rows, long columns, long inner, float weight, float eps, float clip, float shrink, float rate) {
    const long lanes = columns >= 512 ? 64 : columns >= 128 ? 16 : 8;
    const long row = columns * inner, strip = inner * lanes, full = row / strip * strip;
    float *restrict sums = Q + row, *restrict factor = sums + strip, *restrict means = factor + strip;
    for (long j = 0; j < row; j++) Q[j] = 0.0f;
    for (long a = 0; a < rows; a++) {
        const float *restrict g = G + a * row;
        for (long w = 0; w < strip; w++) sums[w] = 0.0f;
        for (long from = 0; from < full; from += strip)
            for (long w = 0; w < strip; w++) { float s = g[from + w] * g[from + w]; Q[from + w] += s; sums[w] += s; }
        for (long j = full; j < row; j++) { float s = g[j] * g[j]; Q[j] += s; sums[j - full] += s; }
        for (long k = 0; k < inner; k++) {
            float s = 0.0f;
            for (long m = 0; m < lanes; m++) s += sums[m * inner + k];
            R[a * inner + k] += weight * (s / columns + eps - R[a * inner + k]);
        }
    }
    for (long k = 0; k < inner; k++) {
        double s = 0.0;
        for (long a = 0; a < rows; a++) s += R[a * inner + k];
        means[k] = s / rows;
    }
    for (long j = 0; j < row; j++) {
        C[j] += weight * (Q[j] / rows + eps - C[j]);
        Q[j] = 1.0f / sqrtf(C[j]);
    }
    double square = 0.0;
    for (int pass = 0; pass < 2; pass++) {
        const float scale = rate / fmaxf(1.0f, (float)sqrt(square / ((double)rows * row)) / clip);
        for (long a = 0; a < rows; a++) {
            const float *restrict g = G + a * row;
            float *restrict p = P + a * row;
            for (long k = 0; k < inner; k++) {
                const float f = 1.0f / sqrtf(R[a * inner + k] / means[k]);
                for (long m = 0; m < lanes; m++) factor[m * inner + k] = f;
            }
            for (long w = 0; w < strip; w++) sums[w] = 0.0f;
            if (pass) {
                for (long from = 0; from < full; from += strip)
                    for (long w = 0; w < strip; w++)
                        p[from + w] = p[from + w] * shrink - g[from + w] * factor[w] * Q[from + w] * scale;
                for (long j = full; j < row; j++) p[j] = p[j] * shrink - g[j] * factor[j - full] * Q[j] * scale;
                continue;
            }
            for (long from = 0; from < full; from += strip)
                for (long w = 0; w < strip; w++) {
                    float u = g[from + w] * factor[w] * Q[from + w];
                    sums[w] += u * u;
                }
            for (long j = full; j < row; j++) { float u = g[j] * factor[j - full] * Q[j]; square += (double)u * u; }
            for (long w = 0; w < strip; w++) square += sums[w];
        }
    }
}
