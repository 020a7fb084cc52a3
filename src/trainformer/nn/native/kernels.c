/* Passes over memory that a training step in bfloat16 on a CPU makes between its matrix products.
 *
 * Plain C that the compiler vectorises. Each kernel has `threads`, and gives the same bits for any number of them: what is
 * summed is cut into pieces of one size, whose sums are added in their order. Shapes are those of core/shapes.py; all
 * arrays are contiguous. The plain PyTorch of each kernel stands in its test.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

typedef uint16_t half; /* bfloat16: the upper half of a float */
typedef int64_t size;

#define PIECE 16384

static inline float wide(half h) {
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

/* Rounds to the nearest, ties to even; NaN stays NaN. */
static inline half narrow(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (half)((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}

static inline size least(size a, size b) { return a < b ? a : b; }

/* ---- numbers ---- */

void to_half(const float *from, half *to, size n, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size begin = 0; begin < n; begin += PIECE)
        for (size i = begin; i < least(n, begin + PIECE); i++) to[i] = narrow(from[i]);
}

/* The result is as large as the weights and read much later: where it can, it goes past the caches. */
void to_float(const half *from, float *to, size n, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size begin = 0; begin < n; begin += PIECE) {
        size i = begin, end = least(n, begin + PIECE);
#if defined(__AVX512F__)
        if (((uintptr_t)to & 63) == 0)
            for (; i + 16 <= end; i += 16) {
                __m512i x = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(from + i)));
                _mm512_stream_ps(to + i, _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)));
            }
        _mm_sfence();
#endif
        for (; i < end; i++) to[i] = wide(from[i]);
    }
}

/* ---- the weight gradient: what the product needs of the gradient of its output ---- */

typedef uint16_t eight __attribute__((vector_size(16)));

#if defined(__clang__)
static inline eight low(eight a, eight b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
static inline eight high(eight a, eight b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
#else
static inline eight low(eight a, eight b) { return __builtin_shuffle(a, b, (eight){0, 8, 1, 9, 2, 10, 3, 11}); }
static inline eight high(eight a, eight b) { return __builtin_shuffle(a, b, (eight){4, 12, 5, 13, 6, 14, 7, 15}); }
#endif

/* 8 x 8: three times the rows i and i + 4 are interleaved. */
static inline void turn(const half *from, size from_row, half *to, size to_row) {
    eight a[8], b[8];
    for (int i = 0; i < 8; i++) memcpy(&a[i], from + i * from_row, 16);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 4; i++) b[2 * i] = low(a[i], a[i + 4]), b[2 * i + 1] = high(a[i], a[i + 4]);
        memcpy(a, b, sizeof a);
    }
    for (int i = 0; i < 8; i++) memcpy(to + i * to_row, &a[i], 16);
}

#define COLUMNS 128 /* wide, so that few pages of memory are met again and again */
#define AHEAD 16    /* rows that are asked of the memory before they are read: it does not guess that a row follows */

/* grad "T N" -> turned "N T" and the sum of each column "N". */
void turn_and_sum(const half *grad, half *turned, float *sums, size rows, size columns, int threads) {
    size share = least(COLUMNS, ((columns + threads - 1) / threads + 31) / 32 * 32);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size first = 0; first < columns; first += share) {
        size width = least(columns - first, share), eights = width / 8 * 8;
        float sum[COLUMNS] = {0};
        for (size top = 0; top < rows; top += 8) {
            size bottom = least(rows, top + 8), done = bottom - top == 8 ? eights : 0;
            for (size r = least(rows, top + AHEAD); r < least(rows, top + AHEAD + 8); r++)
                for (size c = first; c < first + width; c += 32) __builtin_prefetch(grad + r * columns + c);
            for (size c = first; c < first + done; c += 8)
                turn(grad + top * columns + c, columns, turned + c * rows + top, rows);
            for (size r = top; r < bottom; r++) {
                const half *from = grad + r * columns + first;
                for (size c = done; c < width; c++) turned[(first + c) * rows + r] = from[c];
                for (size c = 0; c < width; c++) sum[c] += wide(from[c]);
            }
        }
        memcpy(sums + first, sum, width * sizeof(float));
    }
}

/* ---- the optimiser ---- */

double sum_of_squares(const float *x, size n, int threads) {
    size pieces = (n + PIECE - 1) / PIECE;
    double *part = malloc((size_t)(pieces + 1) * sizeof(double)), total = 0;
    if (!part) return NAN;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size piece = 0; piece < pieces; piece++) {
        size end = least(n, (piece + 1) * PIECE);
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size i = piece * PIECE; i < end; i++) sum += x[i] * x[i];
        part[piece] = sum;
    }
    for (size piece = 0; piece < pieces; piece++) total += part[piece];
    free(part);
    return total;
}

struct adamw {
    float shrink, beta1, beta2, eps, keep, rate, root; /* keep: 1 - lr * decay; rate: lr / (1 - beta1^t); root: (1 - beta2^t)^-1/2 */
};

/* One step of AdamW; `copy`, unless it is null, gets the new weights in bfloat16. */
void adamw(float *weight, const float *grad, float *mean, float *square, half *copy, size n, const struct adamw *a, int threads) {
    struct adamw k = *a;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size begin = 0; begin < n; begin += PIECE) {
        size end = least(n, begin + PIECE);
#pragma omp simd
        for (size i = begin; i < end; i++) {
            float g = grad[i] * k.shrink;
            float m = k.beta1 * mean[i] + (1 - k.beta1) * g;
            float v = k.beta2 * square[i] + (1 - k.beta2) * g * g;
            mean[i] = m;
            square[i] = v;
            weight[i] = weight[i] * k.keep - k.rate * m / (sqrtf(v) * k.root + k.eps);
        }
        if (copy)
            for (size i = begin; i < end; i++) copy[i] = narrow(weight[i]);
    }
}
