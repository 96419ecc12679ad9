/* C = A B: A is m x k, B is k x n, all row by row. A block makes a tile of C; tiles of A and B
 * that it needs come into shared memory once. In what C and CUDA C have in common: the tests run
 * it on a processor. */
#define TILE 16

#ifdef __cplusplus
extern "C"
#endif
__global__ void matmul(const float *a, const float *b, float *c, unsigned m, unsigned k, unsigned n)
{
    __shared__ float a_tile[TILE][TILE], b_tile[TILE][TILE];
    unsigned x = threadIdx.x, y = threadIdx.y;
    unsigned row = blockIdx.y * TILE + y, column = blockIdx.x * TILE + x;
    float sum = 0;

    for (unsigned first = 0; first < k; first += TILE) {
        a_tile[y][x] = row < m && first + x < k ? a[(unsigned long long)row * k + first + x] : 0;
        b_tile[y][x] = first + y < k && column < n ? b[(unsigned long long)(first + y) * n + column] : 0;
        __syncthreads();
        for (unsigned i = 0; i < TILE; i++)
            sum += a_tile[y][i] * b_tile[i][x];
        __syncthreads();
    }
    if (row < m && column < n)
        c[(unsigned long long)row * n + column] = sum;
}
