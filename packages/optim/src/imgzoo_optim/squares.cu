/* Sum of squares of each chunk of each tensor (see loop.cu), always in the same order. THREADS is a power of two. */
extern "C" __global__ void run(float **tensors, const long long *sizes, const int *chunks, float *sums) {
    __shared__ float shared[THREADS];
    const int t = chunks[2 * blockIdx.x];
    const long long from = (long long)chunks[2 * blockIdx.x + 1] * CHUNK;
    const long long to = from + CHUNK < sizes[t] ? from + CHUNK : sizes[t];
    const float *x = tensors[t];
    float sum = 0.0f;
    for (long long i = from + threadIdx.x; i < to; i += THREADS) sum += x[i] * x[i];
    shared[threadIdx.x] = sum;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = shared[0];
}
