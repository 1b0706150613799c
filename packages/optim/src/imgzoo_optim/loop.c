/* An update rule over parallel lists of tensors, in one pass over memory. What the rule is stands in macros before this
   text (see kernel.py): COLUMNS tensors a parameter, OPEN its state and constants, LOAD an element (p, g, its state),
   BODY and STORE it, FINISH with the step u. K holds the constants, of which the first five are every rule's. */
#include <math.h>
#include <string.h>

static inline float cube_root(float x) {
    unsigned int bits; float y;
    memcpy(&bits, &x, 4); bits = bits / 3 + 709921077u; memcpy(&y, &bits, 4);
    for (int k = 0; k < 3; k++) { float c = y * y * y; y *= (c + x + x) / (c + c + x); }
    return y;
}

void run(long count, float **tensors, const long *sizes, const float *factors, const float *K, long start, long stop) {
    long base = 0;
    for (long t = 0; t < count; t++) {
        long from = start > base ? start - base : 0, to = stop - base < sizes[t] ? stop - base : sizes[t];
        base += sizes[t];
        if (from >= to) continue;
        const float factor = factors ? factors[t] : 1.0f;
        (void)factor;
        float **row = tensors + t * COLUMNS;
        float *restrict P = row[0]; const float *restrict G = row[1];
        OPEN
        #pragma GCC ivdep
        for (long i = from; i < to; i++) {
            LOAD
            BODY
            STORE
            FINISH
        }
    }
}
