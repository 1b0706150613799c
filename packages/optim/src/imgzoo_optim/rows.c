/* An update rule whose step is changed row by row by what sums over rows say, in two passes over memory and without
   room for the step. A row has lengths[t] elements of tensor t, the last one those that are left. A thread takes the
   rows that begin from `start` to `stop`, counted in elements over all tensors: no sum depends on how many threads
   there are. The macros are those of loop.c, with STEP what makes the step `u` once BODY has changed the state. */
#include <math.h>
#define PART 4096
#define ROWS(visit) \
    long base = 0; \
    for (long t = 0; t < count; t++) { \
        const long size = sizes[t], length = lengths[t], rows = (size + length - 1) / length; \
        float **row = tensors + t * COLUMNS; \
        for (long r = start > base ? (start - base + length - 1) / length : 0; r < rows; r++) { \
            const long from = r * length, end = from + length < size ? from + length : size; \
            if (base + from >= stop) break; \
            visit \
        } \
        base += size; \
        found += rows * WIDTH; \
    }

/* First pass: the state changes; of each row the sums p * g, p * p, g * g, p * u and u * u. */
static void sums(float **row, const float *K, long from, long to, double *found) {
    const float *restrict P = row[0], *restrict G = row[1];
    float sum_pg = 0.0f, sum_pp = 0.0f, sum_gg = 0.0f, sum_pu = 0.0f, sum_uu = 0.0f;
    OPEN
    #pragma omp simd reduction(+ : sum_pg, sum_pp, sum_gg, sum_pu, sum_uu)
    for (long i = from; i < to; i++) {
        LOAD
        const float gradient = g;
        BODY
        STEP
        STORE
        sum_pg += p * gradient; sum_pp += p * p; sum_gg += gradient * gradient; sum_pu += p * u; sum_uu += u * u;
    }
    found[0] += sum_pg; found[1] += sum_pp; found[2] += sum_gg; found[3] += sum_pu; found[4] += sum_uu;
}

#define WIDTH 5
void measure(long count, float **tensors, const long *sizes, const long *lengths, const float *K, double *found,
             long start, long stop) {
    ROWS(
        for (int k = 0; k < WIDTH; k++) found[r * WIDTH + k] = 0.0;
        for (long i = from; i < end; i += PART) sums(row, K, i, i + PART < end ? i + PART : end, found + r * WIDTH);
    )
}
#undef WIDTH

/* Second pass: of each row's three numbers the parameter's factor, how much of it its step loses, and the rate. */
static void change(float **row, const float *K, long from, long to, const float *restrict found) {
    float *restrict P = row[0]; const float *restrict G = row[1];
    OPEN
    #pragma GCC ivdep
    for (long i = from; i < to; i++) {
        LOAD
        STEP
        P[i] = found[0] * p - found[2] * (u - found[1] * p);
    }
}

#define WIDTH 3
void move(long count, float **tensors, const long *sizes, const long *lengths, const float *K, const float *found,
          long start, long stop) {
    ROWS(change(row, K, from, end, found + r * WIDTH);)
}
