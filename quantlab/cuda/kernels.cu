// Count the magnitudes of many tensors in one launch, each element read once.
//
// A tensor has BINS bins of width 2^exponent; its bins on the device leave out the zeros, which are
// what is missing from its size.  Three launches make a batch:
//   count   every element once; what lies beyond the bins only shows in the extremes
//   settle  where it does, widen the bins (they nest, so that is exact)
//   rest    there alone, go through the tensor again and count what count left out
// Once the bins are wide enough, settle and rest find nothing to do.  No launch waits for the host.

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// The compiler is given BINS, TILE, THREADS, BLOCKS, UNROLL, COPIES and NOTHING_SEEN: layout.py says
// what they are.

#define LOG2_BINS 12
#define INFINITY_BITS 0x7f800000u
#define NO_SAMPLE 0xffffffffffffffffull

// Adding 2^23 to a number below it leaves the number's integer part in the sum's low bits.
#define INTEGER 8388608.0f
#define INTEGER_BITS 0x4b000000u

// Zeros go to a bin of their own that nobody reads: cheaper than a branch, and no bin is contended.
#define ZERO (INTEGER_BITS + BINS)

static_assert(BINS == 1 << LOG2_BINS, "bins nest in powers of two");

enum Kind { FLOAT32 = 0, FLOAT16 = 1, BFLOAT16 = 2 };

struct Tensor {
    const void* data;
    u64 size;        // elements
    u64 per_sample;  // elements of a sample; its size where the batch is no axis
    u64 first_tile;
    u64 kind;
};

struct State {
    u32 low, high;  // ordered bits of this batch's finite extremes
    int exponent;
    u32 limit;          // bits of the least magnitude beyond the bins
    u32 previous;       // limit before the last settle
    float least, most;  // finite extremes of all batches
    u32 unused;
    u64 nans, infs;
    u64 first_nan, first_inf;  // least index of a sample with one
};

struct Seen { float low, high; };  // by a thread

struct Found {  // by a block
    u32 low, high;  // ordered bits
    u32 nans, infs;
    u64 first_nan, first_inf;
};

struct Bins {
    u32 table;            // address in shared memory, less what INTEGER_BITS adds to it
    float first, second;  // 1 / width as two factors: one may exceed float32
    u32 limit, previous;
};

__device__ u32 magnitude(float x) { return __float_as_uint(x) & 0x7fffffffu; }

// Unsigned integers in the order of the floats.
__device__ u32 ordered(float x) {
    u32 bits = __float_as_uint(x);
    return bits ^ ((bits >> 31) ? 0xffffffffu : 0x80000000u);
}

__device__ float unordered(u32 key) {
    return __uint_as_float(key ^ ((key >> 31) ? 0x80000000u : 0xffffffffu));
}

__device__ float infinity() { return __uint_as_float(INFINITY_BITS); }

// 2^power for -126 <= power <= 127.
__device__ float power_of_two(int power) { return __uint_as_float((u32)(power + 127) << 23); }

// p with 2^(p - 1) <= x < 2^p, of the bits of x > 0.
__device__ int above(u32 bits) {
    return bits >> 23 ? (int)(bits >> 23) - 126 : -117 - __clz(bits);
}

// Bits of 2^p, infinity's if it is beyond float32.
__device__ u32 bits_of_power(int p) { return p >= -126 ? (u32)(p + 127) << 23 : 1u << (p + 149); }

__device__ Bins bins_of(u32* table, const State& state) {
    u32 address = (u32)__cvta_generic_to_shared(table + threadIdx.x % COPIES);
    address -= INTEGER_BITS * (4 * COPIES);  // modulo 2^32
    Bins bins = {address, 1.0f, 0.0f, state.limit, state.previous};
    if (state.exponent == NOTHING_SEEN) {
        bins.first = bins.second = power_of_two(126);  // puts every number but 0 beyond the bins
    } else if (state.exponent < -126) {
        bins.first = power_of_two(64);
        bins.second = power_of_two(-state.exponent - 64);
    } else {
        bins.second = power_of_two(-state.exponent);
    }
    return bins;
}

// INTEGER_BITS + the bin of x; other bits are set too if x is beyond the bins or not finite.
__device__ u32 numbered(float x, const Bins& bins) {
    return __float_as_uint(__fmaf_rz(fabsf(x) * bins.first, bins.second, INTEGER));
}

__device__ void increment(const Bins& bins, u32 number) {
    asm volatile("red.shared.add.u32 [%0], 1;" ::"r"(bins.table + number * (4 * COPIES)) : "memory");
}

__device__ float from_half(u16 bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

template <int KIND>
__device__ float one(const void* data, u64 i) {
    if (KIND == FLOAT32) return static_cast<const float*>(data)[i];
    u16 bits = static_cast<const u16*>(data)[i];
    return KIND == FLOAT16 ? from_half(bits) : __uint_as_float((u32)bits << 16);
}

template <int KIND>
__device__ void unpack(const uint4& packed, float* x) {
    const u32 words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (KIND == FLOAT32) {
            x[i] = __uint_as_float(words[i]);
        } else if (KIND == FLOAT16) {
            x[2 * i] = from_half((u16)words[i]);
            x[2 * i + 1] = from_half((u16)(words[i] >> 16));
        } else {
            x[2 * i] = __uint_as_float(words[i] << 16);
            x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
        }
    }
}

template <int KIND>
struct Group {  // the elements of a 16-byte load
    static constexpr int WIDTH = KIND == FLOAT32 ? 4 : 8;
    float x[WIDTH];
    u32 numbers[WIDTH];
    bool usual;  // all finite and within the bins
};

template <int KIND>
__device__ Group<KIND> group_of(const uint4& packed, const Bins& bins) {
    Group<KIND> group;
    u32 all = 0;
    unpack<KIND>(packed, group.x);
#pragma unroll
    for (int i = 0; i < group.WIDTH; ++i) {
        group.numbers[i] = numbered(group.x[i], bins);
        all |= group.numbers[i];
    }
    group.usual = (all & ~(INTEGER_BITS | (BINS - 1))) == 0;
    return group;
}

// Count a group if it is a usual one; return whether it is.
template <int KIND>
__device__ bool look(const uint4& packed, const Bins& bins, Seen& seen) {
    const Group<KIND> group = group_of<KIND>(packed, bins);
    if (group.usual) {
#pragma unroll
        for (int i = 0; i < group.WIDTH; ++i) {
            increment(bins, group.x[i] == 0.0f ? ZERO : group.numbers[i]);
            seen.low = fminf(seen.low, group.x[i]);
            seen.high = fmaxf(seen.high, group.x[i]);
        }
    }
    return group.usual;
}

// Count an element of any kind.
template <int KIND>
__device__ void look_closely(
    const Tensor* tensor, u64 i, const u64* samples, const Bins& bins, Seen& seen, Found* found
) {
    const float x = one<KIND>(tensor->data, i);
    const u32 bits = magnitude(x);
    if (bits < INFINITY_BITS) {
        seen.low = fminf(seen.low, x);
        seen.high = fmaxf(seen.high, x);
        if (bits && bits < bins.limit) increment(bins, numbered(x, bins));
        return;
    }
    const bool nan = bits > INFINITY_BITS;
    const u64 sample = samples[i / tensor->per_sample];
    u64* first = nan ? &found->first_nan : &found->first_inf;
    atomicAdd(nan ? &found->nans : &found->infs, 1u);
    if (sample < *(volatile u64*)first) atomicMin(first, sample);
}

// Groups that are not usual are left for a second look, which keeps the first one short.
template <int KIND>
__device__ Seen count_range(
    const Tensor* tensor, u64 begin, u64 end, const u64* samples, const Bins& bins, Found* found
) {
    constexpr int WIDTH = Group<KIND>::WIDTH;
    const bool aligned = reinterpret_cast<u64>(tensor->data) % 16 == 0;
    const u32 vectors = aligned ? (end - begin) / WIDTH : 0;
    const uint4* data = static_cast<const uint4*>(tensor->data) + begin / WIDTH;
    Seen seen = {infinity(), -infinity()};
    bool usual = true;
    u32 i = threadIdx.x;
    for (; i + (UNROLL - 1) * THREADS < vectors; i += UNROLL * THREADS) {
        uint4 loaded[UNROLL];
#pragma unroll
        for (int j = 0; j < UNROLL; ++j) loaded[j] = __ldcs(data + i + j * THREADS);
#pragma unroll
        for (int j = 0; j < UNROLL; ++j) usual &= look<KIND>(loaded[j], bins, seen);
    }
    for (; i < vectors; i += THREADS) usual &= look<KIND>(__ldcs(data + i), bins, seen);
    if (!usual) {
        for (i = threadIdx.x; i < vectors; i += THREADS) {
            if (group_of<KIND>(data[i], bins).usual) continue;
#pragma unroll 1
            for (int j = 0; j < WIDTH; ++j)
                look_closely<KIND>(
                    tensor, begin + (u64)i * WIDTH + j, samples, bins, seen, found
                );
        }
    }
    for (u64 last = begin + (u64)vectors * WIDTH + threadIdx.x; last < end; last += THREADS)
        look_closely<KIND>(tensor, last, samples, bins, seen, found);
    return seen;
}

// Count what lay beyond the bins before they were widened.
template <int KIND>
__device__ void count_rest(const Tensor* tensor, u64 begin, u64 end, const Bins& bins) {
    for (u64 i = begin + threadIdx.x; i < end; i += THREADS) {
        const float x = one<KIND>(tensor->data, i);
        const u32 bits = magnitude(x);
        if (bits >= bins.previous && bits < INFINITY_BITS) increment(bins, numbered(x, bins));
    }
}

__device__ u32 lowest_of_warp(u32 x) {
#pragma unroll
    for (int step = 16; step; step /= 2) x = min(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

__device__ u32 highest_of_warp(u32 x) {
#pragma unroll
    for (int step = 16; step; step /= 2) x = max(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

// Add the block's table to the tensor's counts and leave it empty.
__device__ void flush(u32* table, u64* counts) {
    for (int bin = threadIdx.x; bin < BINS; bin += THREADS) {
        u32 sum = 0;
#pragma unroll
        for (int copy = 0; copy < COPIES; ++copy) {
            sum += table[bin * COPIES + copy];
            table[bin * COPIES + copy] = 0;
        }
        if (sum) atomicAdd(counts + bin, (u64)sum);
    }
}

__device__ Found nothing() {
    return {ordered(infinity()), ordered(-infinity()), 0, 0, NO_SAMPLE, NO_SAMPLE};
}

__device__ void gather(const Seen& seen, Found* found) {
    u32 low = lowest_of_warp(ordered(seen.low)), high = highest_of_warp(ordered(seen.high));
    if (threadIdx.x % 32 == 0) {
        atomicMin(&found->low, low);
        atomicMax(&found->high, high);
    }
}

// By one thread: add what the block found and leave it empty.
__device__ void report(Found* found, State* state) {
    atomicMin(&state->low, found->low);
    atomicMax(&state->high, found->high);
    if (found->nans) {
        atomicAdd(&state->nans, (u64)found->nans);
        atomicMin(&state->first_nan, found->first_nan);
    }
    if (found->infs) {
        atomicAdd(&state->infs, (u64)found->infs);
        atomicMin(&state->first_inf, found->first_inf);
    }
    *found = nothing();
}

// The tensor that a tile belongs to.
__device__ u32 owner(const Tensor* tensors, u32 number, u64 tile) {
    u32 low = 0, high = number;
    while (high - low > 1) {
        u32 middle = (low + high) / 2;
        if (tensors[middle].first_tile <= tile) low = middle; else high = middle;
    }
    return low;
}

// One block's part of a tensor.
template <int KIND, bool REST>
__device__ void count_part(
    const Tensor* tensor, u64 begin, u64 end, const u64* samples, const Bins& bins, Found* found
) {
    if (REST)
        count_rest<KIND>(tensor, begin, end, bins);
    else
        gather(count_range<KIND>(tensor, begin, end, samples, bins, found), found);
}

// Each block takes an equal run of tiles, and so a part of one tensor or a few.
template <bool REST>
__device__ void count_all(
    const Tensor* tensors, u32 number, u64 tiles, const u64* samples, State* states, u64* counts
) {
    extern __shared__ u32 table[];
    __shared__ Found found;
    for (int i = threadIdx.x; i < BINS * COPIES; i += THREADS) table[i] = 0;
    if (threadIdx.x == 0) found = nothing();
    __syncthreads();
    u64 tile = tiles * blockIdx.x / gridDim.x;
    const u64 last = tiles * (blockIdx.x + 1) / gridDim.x;
    if (tile == last) return;
    for (u32 i = owner(tensors, number, tile); tile < last; ++i) {
        const Tensor* tensor = tensors + i;
        State* state = states + i;
        const u64 stop = i + 1 < number ? min(last, tensors[i + 1].first_tile) : last;
        if (stop > tile && (!REST || state->previous < state->limit)) {
            const u64 begin = (tile - tensor->first_tile) * TILE;
            const u64 end = min(tensor->size, (stop - tensor->first_tile) * TILE);
            const Bins bins = bins_of(table, *state);
            if (tensor->kind == FLOAT32)
                count_part<FLOAT32, REST>(tensor, begin, end, samples, bins, &found);
            else if (tensor->kind == FLOAT16)
                count_part<FLOAT16, REST>(tensor, begin, end, samples, bins, &found);
            else
                count_part<BFLOAT16, REST>(tensor, begin, end, samples, bins, &found);
            __syncthreads();
            flush(table, counts + (u64)i * BINS);
            if (!REST && threadIdx.x == 0) report(&found, state);
            __syncthreads();
        }
        tile = stop;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) count(
    const Tensor* tensors, u32 number, u64 tiles, const u64* samples, State* states, u64* counts
) {
    count_all<false>(tensors, number, tiles, samples, states, counts);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) rest(
    const Tensor* tensors, u32 number, u64 tiles, const u64* samples, State* states, u64* counts
) {
    count_all<true>(tensors, number, tiles, samples, states, counts);
}

// One block a tensor: note the batch's extremes and widen the bins if they lie beyond.  The extremes
// go to the host's memory.
extern "C" __global__ void settle(State* states, u64* counts, float2* extremes) {
    __shared__ u64 old[BINS];
    State* state = states + blockIdx.x;
    u64* mine = counts + (u64)blockIdx.x * BINS;
    const float low = unordered(state->low), high = unordered(state->high);
    const u32 amax = low > high ? 0 : max(magnitude(low), magnitude(high));
    const int before = state->exponent;
    const int after = amax ? max(above(amax) - LOG2_BINS, before) : before;
    __syncthreads();
    if (threadIdx.x == 0) {
        extremes[blockIdx.x] = make_float2(low, high);
        state->least = fminf(state->least, low);
        state->most = fmaxf(state->most, high);
        state->low = ordered(infinity());
        state->high = ordered(-infinity());
        state->previous = state->limit;
        if (after > before) {
            state->exponent = after;
            state->limit = bits_of_power(after + LOG2_BINS);
        }
    }
    if (after == before || before == NOTHING_SEEN) return;
    for (int i = threadIdx.x; i < BINS; i += blockDim.x) old[i] = mine[i];
    __syncthreads();
    const int factor = 1 << min(after - before, LOG2_BINS);
    for (int i = threadIdx.x; i < BINS; i += blockDim.x) {
        u64 sum = 0;
        if (i < BINS / factor)
            for (int j = 0; j < factor; ++j) sum += old[i * factor + j];
        mine[i] = sum;
    }
}
