/* loop.c on a CUDA device, under the same macros: a block of threads takes CHUNK elements of one tensor. `chunks` says
   which tensor and which of its chunks; `factors` holds a number for each tensor where `scaled` is not 0. */
#define restrict __restrict__

static __device__ inline float cube_root(float x) { return cbrtf(x); }

extern "C" __global__ void run(float **tensors, const long long *sizes, const int *chunks, const float *factors,
                               const float *K, int scaled) {
    const int t = chunks[2 * blockIdx.x];
    const long long from = (long long)chunks[2 * blockIdx.x + 1] * CHUNK;
    const long long to = from + CHUNK < sizes[t] ? from + CHUNK : sizes[t];
    const float factor = scaled ? factors[t] : 1.0f;
    (void)factor;
    float **row = tensors + (long long)t * COLUMNS;
    float *restrict P = row[0]; const float *restrict G = row[1];
    OPEN
    #pragma unroll 4
    for (long long i = from + threadIdx.x; i < to; i += blockDim.x) {
        LOAD
        BODY
        STORE
        FINISH
    }
}
