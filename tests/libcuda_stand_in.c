/* A stand-in for NVIDIA's driver: as much of its API as matmul.py calls, on the processor.
 * KERNEL is the source of what is launched; a block is as many threads as a GPU gives it. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    unsigned x, y, z;
} Index;

static _Thread_local Index threadIdx;
static Index blockIdx;
static pthread_barrier_t barrier;
#define __global__ static
#define __shared__ static /* of one block at a time */
#define __syncthreads() pthread_barrier_wait(&barrier)
#include KERNEL

enum { INVALID = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500, BYTES_MAX = 1 << 24 };
static struct {
    const float *a, *b;
    float *c;
    unsigned m, k, n;
    Index grid, block;
    int waits;
} launched;
static int64_t held_bytes;

int cuInit(unsigned flags) { return flags ? INVALID : 0; }
int cuDeviceGet(int *device, int ordinal) { return *device = 3, ordinal ? INVALID : 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { return *context = &launched, device != 3; }
int cuCtxSetCurrent(void *context) { return context != &launched; }

int cuDevicePrimaryCtxRelease_v2(int device)
{
    if (held_bytes)
        fprintf(stderr, "%lld bytes were not given back\n", (long long)held_bytes);
    return device != 3;
}

int cuDeviceGetName(char *name, int size, int device)
{
    snprintf(name, size, "Stand-in");
    return device != 3;
}

int cuGetErrorString(int code, const char **text)
{
    *text = code == OUT_OF_MEMORY ? "out of memory" : "fault";
    return 0;
}

int cuModuleLoadData(void **module, const char *image)
{
    *module = (void *)image;
    return strstr(image, ".visible .entry matmul(") ? 0 : INVALID;
}

int cuModuleGetFunction(void **function, void *module, const char *name)
{
    *function = module;
    return strcmp(name, "matmul") ? NOT_FOUND : 0;
}

int cuMemAlloc_v2(uint64_t *address, size_t size)
{
    if (!size || size > BYTES_MAX)
        return size ? OUT_OF_MEMORY : INVALID;
    size_t *block = malloc(sizeof(size_t) + size);
    memset(block + 1, 0x7f, size);
    held_bytes += *block = size;
    *address = (uint64_t)(block + 1);
    return 0;
}

int cuMemFree_v2(uint64_t address)
{
    size_t *block = (size_t *)address - 1;
    held_bytes -= *block;
    free(block);
    return 0;
}

int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t size) { return memcpy((void *)to, from, size), 0; }
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t size) { return memcpy(to, (void *)from, size), 0; }

int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, void *stream, void **arguments, void **extra)
{
    launched.a = *(const float **)arguments[0];
    launched.b = *(const float **)arguments[1];
    launched.c = *(float **)arguments[2];
    launched.m = *(unsigned *)arguments[3];
    launched.k = *(unsigned *)arguments[4];
    launched.n = *(unsigned *)arguments[5];
    launched.grid = (Index){gx, gy, gz};
    launched.block = (Index){bx, by, bz};
    launched.waits = 1;
    return !function || shared || stream || extra ? INVALID : 0;
}

static void *run(void *index)
{
    unsigned thread = (unsigned)(uintptr_t)index;
    threadIdx = (Index){thread % launched.block.x, thread / launched.block.x, 0};
    matmul(launched.a, launched.b, launched.c, launched.m, launched.k, launched.n);
    return NULL;
}

int cuCtxSynchronize(void)
{
    unsigned count = launched.block.x * launched.block.y * launched.block.z;
    pthread_t threads[count];

    if (!launched.waits)
        return 0;
    launched.waits = 0;
    pthread_barrier_init(&barrier, NULL, count);
    for (blockIdx.y = 0; blockIdx.y < launched.grid.y; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < launched.grid.x; blockIdx.x++) {
            for (uintptr_t one = 0; one < count; one++)
                if (pthread_create(&threads[one], NULL, run, (void *)one))
                    abort();
            for (unsigned one = 0; one < count; one++)
                pthread_join(threads[one], NULL);
        }
    return 0;
}
