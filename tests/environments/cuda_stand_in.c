/* The CUDA runtime and driver for a machine without a GPU: device memory, copies, no computing.
 *
 * Under it torch's CUDA build runs as it is: its caching allocator, its statistics and its
 * out-of-memory errors are the real ones. Device memory is a file without a name that no process
 * maps, so that it is not in the process's own memory, and touching it from the host is an error,
 * as with a real device. A kernel does nothing, so what a model computes on the device is
 * meaningless; what is copied there and back is exact.
 *
 *   CUDA_STAND_IN_BYTES     memory of each device (4 GiB)
 *   CUDA_STAND_IN_DEVICES   how many devices there are (1)
 *   CUDA_STAND_IN_OTHERS    bytes of each device that other processes have in use (500 MiB)
 *   CUDA_STAND_IN_STATE     directory where each process that uses a device leaves what it has taken,
 *                           for the NVML beside this file (nvml_stand_in.py); none without it
 *
 * gpu.py builds it, with one line for each further function that torch's libraries import: those
 * do nothing and succeed. Both LD_PRELOAD and the loader's libcuda.so.1 are this one library.
 */
#define _GNU_SOURCE /* memfd_create, fallocate */
#include <cuda_runtime_api.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define DEVICES 8
#define MIB ((size_t)1 << 20)
#define CONTEXT (300 * MIB) /* about what a context takes of a real device */
#define PAGE (2 * MIB)      /* cudaMalloc hands out whole pages of this size */
#define EXPORTED __attribute__((visibility("default")))

struct block {
    char *start;
    size_t bytes;
    int device; /* -1: pinned memory of the host */
    int file;   /* where a device's memory really is */
    struct block *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct block *blocks;
static size_t own[DEVICES];
static size_t *taken = own; /* of each device; in a file that others can read once one is in use */
static int has_context[DEVICES];
static __thread int current;
static __thread cudaError_t last_error;

static size_t number(const char *name, size_t otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static size_t device_bytes(void) { return number("CUDA_STAND_IN_BYTES", 4096 * MIB); }

static size_t others_bytes(void) { return number("CUDA_STAND_IN_OTHERS", 500 * MIB); }

static int device_count(void) {
    size_t count = number("CUDA_STAND_IN_DEVICES", 1);
    return count > DEVICES ? DEVICES : (int)count;
}

static cudaError_t failed(cudaError_t error) { return last_error = error; }

static void tell_others(void) { /* with the lock held */
    char path[4096];
    const char *place = getenv("CUDA_STAND_IN_STATE");
    if (taken != own || !place || !*place) return;
    snprintf(path, sizeof path, "%s/%d", place, (int)getpid());
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0) return;
    void *shared = MAP_FAILED;
    if (ftruncate(file, sizeof own) == 0)
        shared = mmap(NULL, sizeof own, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared == MAP_FAILED) return;
    memcpy(shared, own, sizeof own);
    taken = shared;
}

static void use_device(int device) { /* with the lock held */
    tell_others();
    if (!has_context[device]) {
        has_context[device] = 1;
        taken[device] += CONTEXT;
    }
}

/* -- memory --------------------------------------------------------------------------------- */

static cudaError_t take(void **address, size_t bytes, int device) {
    *address = NULL;
    if (bytes == 0) return cudaSuccess;
    if (device >= 0) bytes = (bytes + PAGE - 1) / PAGE * PAGE;
    struct block block = {MAP_FAILED, bytes, device, -1, NULL}, *kept = malloc(sizeof *kept);
    pthread_mutex_lock(&lock);
    if (device >= 0) use_device(device);
    if (kept && (device < 0 || others_bytes() + taken[device] + bytes <= device_bytes())) {
        if (device >= 0) {
            block.file = memfd_create("device memory", MFD_CLOEXEC);
            if (block.file >= 0 && ftruncate(block.file, (off_t)bytes) == 0)
                block.start = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        } else
            block.start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    if (block.start != MAP_FAILED) {
        if (device >= 0) taken[device] += bytes;
        block.next = blocks;
        *kept = block;
        blocks = kept;
        *address = block.start;
    }
    pthread_mutex_unlock(&lock);
    if (block.start != MAP_FAILED) return cudaSuccess;
    if (block.file >= 0) close(block.file);
    free(kept);
    return failed(cudaErrorMemoryAllocation);
}

static cudaError_t give_back(void *address) {
    if (!address) return cudaSuccess;
    struct block *found = NULL;
    pthread_mutex_lock(&lock);
    for (struct block **link = &blocks; *link; link = &(*link)->next)
        if ((*link)->start == address) {
            found = *link;
            *link = found->next;
            if (found->device >= 0) taken[found->device] -= found->bytes;
            munmap(found->start, found->bytes);
            if (found->file >= 0) close(found->file);
            break;
        }
    pthread_mutex_unlock(&lock);
    free(found);
    return found ? cudaSuccess : failed(cudaErrorInvalidValue);
}

static int block_of(const void *address, struct block *out) {
    int found = 0;
    pthread_mutex_lock(&lock);
    for (struct block *block = blocks; block && !found; block = block->next)
        if ((const char *)address >= block->start && (const char *)address < block->start + block->bytes) {
            *out = *block;
            found = 1;
        }
    pthread_mutex_unlock(&lock);
    return found;
}

/* Moves bytes between memory of the host (no block of a device) and a device's file. */
static cudaError_t move(void *to, const void *from, size_t bytes) {
    struct block target, source;
    int on_target = block_of(to, &target) && target.file >= 0;
    int on_source = block_of(from, &source) && source.file >= 0;
    if (!on_target && !on_source) {
        memmove(to, from, bytes);
        return cudaSuccess;
    }
    char *bounce = on_target && on_source ? malloc(bytes) : NULL;
    char *middle = bounce ? bounce : on_source ? to : (char *)from;
    off_t read_at = on_source ? (const char *)from - source.start : 0;
    off_t write_at = on_target ? (char *)to - target.start : 0;
    cudaError_t result = cudaSuccess;
    for (size_t done = 0; on_source && done < bytes;) {
        ssize_t count = pread(source.file, middle + done, bytes - done, read_at + (off_t)done);
        if (count <= 0) { result = failed(cudaErrorInvalidValue); break; }
        done += (size_t)count;
    }
    for (size_t done = 0; on_target && !result && done < bytes;) {
        ssize_t count = pwrite(target.file, middle + done, bytes - done, write_at + (off_t)done);
        if (count <= 0) { result = failed(cudaErrorInvalidValue); break; }
        done += (size_t)count;
    }
    free(bounce);
    return result;
}

EXPORTED cudaError_t cudaMalloc(void **address, size_t bytes) { return take(address, bytes, current); }
EXPORTED cudaError_t cudaFree(void *address) { return give_back(address); }
EXPORTED cudaError_t cudaHostAlloc(void **address, size_t bytes, unsigned flags) {
    return take(address, bytes, -1);
}
EXPORTED cudaError_t cudaFreeHost(void *address) { return give_back(address); }
EXPORTED cudaError_t cudaGetSymbolAddress(void **address, const void *symbol) {
    return take(address, PAGE, current);
}

EXPORTED cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
    pthread_mutex_lock(&lock);
    use_device(current);
    *total_bytes = device_bytes();
    size_t used = others_bytes() + taken[current];
    *free_bytes = *total_bytes > used ? *total_bytes - used : 0;
    pthread_mutex_unlock(&lock);
    return cudaSuccess;
}

EXPORTED cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *address) {
    memset(attributes, 0, sizeof *attributes);
    attributes->type = cudaMemoryTypeUnregistered;
    attributes->hostPointer = (void *)address;
    struct block block;
    if (block_of(address, &block)) {
        attributes->type = block.device < 0 ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
        attributes->device = block.device < 0 ? current : block.device;
        attributes->devicePointer = (void *)address;
        if (block.device >= 0) attributes->hostPointer = NULL;
    }
    return cudaSuccess;
}

/* A copy is done when the call returns, as all that was asked for before it is. */
EXPORTED cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    return move(to, from, bytes);
}
EXPORTED cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                                     cudaStream_t stream) {
    return cudaMemcpy(to, from, bytes, kind);
}
EXPORTED cudaError_t cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device,
                                         size_t bytes, cudaStream_t stream) {
    return cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToDevice);
}
EXPORTED cudaError_t cudaMemset(void *to, int value, size_t bytes) {
    char *bytes_of_it = malloc(bytes ? bytes : 1);
    if (!bytes_of_it) return failed(cudaErrorMemoryAllocation);
    memset(bytes_of_it, value, bytes);
    cudaError_t error = move(to, bytes_of_it, bytes);
    free(bytes_of_it);
    return error;
}
EXPORTED cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
    return cudaMemset(to, value, bytes);
}

/* -- devices -------------------------------------------------------------------------------- */

EXPORTED cudaError_t cudaGetDeviceCount(int *count) {
    *count = device_count();
    return *count ? cudaSuccess : failed(cudaErrorNoDevice);
}
EXPORTED cudaError_t cudaGetDevice(int *device) {
    *device = current;
    return cudaSuccess;
}
EXPORTED cudaError_t cudaSetDevice(int device) { /* since CUDA 12 this makes the context, too */
    if (device < 0 || device >= device_count()) return failed(cudaErrorInvalidDevice);
    pthread_mutex_lock(&lock);
    current = device;
    use_device(device);
    pthread_mutex_unlock(&lock);
    return cudaSuccess;
}

/* An Ampere's figures: newer ones make torch prefer libraries that need a driver of their own. */
EXPORTED cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device) {
    if (device < 0 || device >= device_count()) return failed(cudaErrorInvalidDevice);
    *properties = (struct cudaDeviceProp){
        .name = "stand-in for a GPU",
        .totalGlobalMem = device_bytes(),
        .major = 8,
        .warpSize = 32,
        .multiProcessorCount = 108,
        .maxThreadsPerBlock = 1024,
        .maxThreadsPerMultiProcessor = 2048,
        .maxThreadsDim = {1024, 1024, 64},
        .maxGridSize = {INT32_MAX, 65535, 65535},
        .maxBlocksPerMultiProcessor = 32,
        .sharedMemPerBlock = 49152,
        .sharedMemPerBlockOptin = 166912,
        .sharedMemPerMultiprocessor = 167936,
        .regsPerBlock = 65536,
        .regsPerMultiprocessor = 65536,
        .l2CacheSize = 40 * MIB,
        .totalConstMem = 65536,
        .textureAlignment = 512,
        .memPitch = INT32_MAX,
        .unifiedAddressing = 1,
        .concurrentKernels = 1,
        .pciBusID = device,
    };
    return cudaSuccess;
}
EXPORTED cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    struct cudaDeviceProp properties;
    cudaError_t error = cudaGetDeviceProperties(&properties, device);
    if (error) return error;
    switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = properties.major; break;
    case cudaDevAttrMultiProcessorCount: *value = properties.multiProcessorCount; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = (int)properties.sharedMemPerBlock; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)properties.sharedMemPerBlockOptin; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = properties.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = properties.maxThreadsPerBlock; break;
    case cudaDevAttrWarpSize: *value = properties.warpSize; break;
    case cudaDevAttrMaxGridDimX: *value = properties.maxGridSize[0]; break;
    case cudaDevAttrMaxGridDimY: *value = properties.maxGridSize[1]; break;
    case cudaDevAttrMaxGridDimZ: *value = properties.maxGridSize[2]; break;
    default: *value = 0;
    }
    return cudaSuccess;
}
EXPORTED cudaError_t cudaDeviceGetPCIBusId(char *text, int size, int device) {
    snprintf(text, (size_t)size, "0000:%02x:00.0", device);
    return cudaSuccess;
}
EXPORTED cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int other) {
    *can = 0;
    return cudaSuccess;
}
EXPORTED cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}
EXPORTED cudaError_t cudaDriverGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}
EXPORTED cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

EXPORTED cudaError_t cudaGetLastError(void) {
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}
EXPORTED cudaError_t cudaPeekAtLastError(void) { return last_error; }
EXPORTED const char *cudaGetErrorName(cudaError_t error) {
    return error == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaError";
}
EXPORTED const char *cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorMemoryAllocation ? "out of memory" : error ? "an error of the stand-in" : "no error";
}

/* -- streams, events, kernels --------------------------------------------------------------- */

static cudaStream_t new_stream(void) {
    static uintptr_t streams = 4096; /* never read through: any distinct value will do */
    return (cudaStream_t)__sync_add_and_fetch(&streams, 16);
}
EXPORTED cudaError_t cudaStreamCreate(cudaStream_t *stream) {
    *stream = new_stream();
    return cudaSuccess;
}
EXPORTED cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    return cudaStreamCreate(stream);
}
EXPORTED cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
    return cudaStreamCreate(stream);
}
EXPORTED cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority) {
    *priority = 0;
    return cudaSuccess;
}
EXPORTED cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
EXPORTED cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status,
                                              unsigned long long *id, cudaGraph_t *graph,
                                              const cudaGraphNode_t **dependencies,
                                              const cudaGraphEdgeData **edges, size_t *count) {
    *status = cudaStreamCaptureStatusNone;
    if (id) *id = 0;
    if (count) *count = 0;
    return cudaSuccess;
}
EXPORTED cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data) {
    function(data);
    return cudaSuccess;
}
EXPORTED cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t callback, void *data,
                                           unsigned flags) {
    callback(stream, cudaSuccess, data);
    return cudaSuccess;
}

EXPORTED cudaError_t cudaEventCreate(cudaEvent_t *event) {
    *event = calloc(1, sizeof(struct timespec));
    return *event ? cudaSuccess : failed(cudaErrorMemoryAllocation);
}
EXPORTED cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    return cudaEventCreate(event);
}
EXPORTED cudaError_t cudaEventDestroy(cudaEvent_t event) {
    free(event);
    return cudaSuccess;
}
EXPORTED cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    clock_gettime(CLOCK_MONOTONIC, (struct timespec *)event);
    return cudaSuccess;
}
EXPORTED cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
    return cudaEventRecord(event, stream);
}
EXPORTED cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t first, cudaEvent_t second) {
    struct timespec from = *(struct timespec *)first, to = *(struct timespec *)second;
    *milliseconds = (float)(to.tv_sec - from.tv_sec) * 1e3f + (float)(to.tv_nsec - from.tv_nsec) / 1e6f;
    return cudaSuccess;
}

EXPORTED cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *function) {
    *attributes = (struct cudaFuncAttributes){
        .maxThreadsPerBlock = 1024, .numRegs = 32, .ptxVersion = 80, .binaryVersion = 80};
    return cudaSuccess;
}
EXPORTED cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks_each, const void *function,
                                                                            int block_size, size_t shared_bytes,
                                                                            unsigned flags) {
    *blocks_each = 2;
    return cudaSuccess;
}
EXPORTED void **__cudaRegisterFatBinary(void *binary) {
    static void *handle[8];
    return handle;
}

/* -- the driver and cuBLAS ------------------------------------------------------------------ */

EXPORTED int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    *flags = 0;
    *active = device >= 0 && device < DEVICES && has_context[device];
    return 0;
}
static int succeed(void) { return 0; }
EXPORTED cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
                                                      unsigned long long flags,
                                                      enum cudaDriverEntryPointQueryResult *result) {
    int state = strcmp(name, "cuDevicePrimaryCtxGetState") == 0;
    *function = state ? (void *)cuDevicePrimaryCtxGetState : (void *)succeed;
    if (result) *result = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}
EXPORTED int cublasCreate_v2(void **handle) {
    static int any;
    *handle = &any;
    return 0;
}
