/* Passes over memory that a training step in bfloat16 on a CPU makes between its matrix products, and the smallest of these;
 * at the end, in float32, those of a text that is written.
 *
 * Plain C that the compiler vectorises. Each kernel has `threads`, and gives the same bits for any number of them: what is
 * summed is cut into pieces of one size, whose sums are added in their order. Shapes are those of core/shapes.py; all
 * arrays are contiguous. The plain PyTorch of each kernel stands in its test.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <immintrin.h>

#ifndef __AVX512F__
#error "this compiler does not know AVX-512"
#endif

typedef uint16_t half; /* bfloat16: the upper half of a float */
typedef int64_t size;

#define PIECE 16384 /* numbers that one thread takes at a time */
#define BLOCK 16    /* floats in a register */

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

/* The result is as large as the weights and read much later: it goes past the caches. It must lie on a whole block. */
void to_float(const half *from, float *to, size n, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size begin = 0; begin < n; begin += PIECE) {
        size i = begin, end = least(n, begin + PIECE);
        for (; i + BLOCK <= end; i += BLOCK) {
            __m512i x = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(from + i)));
            _mm512_stream_ps(to + i, _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)));
        }
        for (; i < end; i++) to[i] = wide(from[i]);
        _mm_sfence();
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

struct adamw {
    float shrink, beta1, beta2, eps, keep, rate, root; /* keep: 1 - lr * decay; rate: lr / (1 - beta1^t); root: (1 - beta2^t)^-1/2 */
};

/* Of n numbers; `copy` gets the new weights in bfloat16. */
static inline void move(float *weight, const float *grad, float *mean, float *square, half *copy, size n, struct adamw k) {
#pragma omp simd
    for (size i = 0; i < n; i++) {
        float g = grad[i] * k.shrink;
        float m = k.beta1 * mean[i] + (1 - k.beta1) * g;
        float v = k.beta2 * square[i] + (1 - k.beta2) * g * g;
        float w = weight[i] * k.keep - k.rate * m / (sqrtf(v) * k.root + k.eps);
        mean[i] = m;
        square[i] = v;
        weight[i] = w;
        copy[i] = narrow(w);
    }
}

#define FAR 1024 /* numbers that are asked of the memory before they are read: of four arrays, so it does not guess in time */

/* One step of AdamW; `copy`, unless it is null, gets the new weights in bfloat16, past the caches: it is read much later. */
void adamw(float *weight, const float *grad, float *mean, float *square, half *copy, size n, const struct adamw *given, int threads) {
    struct adamw k = *given;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size begin = 0; begin < n; begin += PIECE) {
        size i = begin, end = least(n, begin + PIECE);
        half new[BLOCK] __attribute__((aligned(32)));
        for (; i + BLOCK <= end; i += BLOCK) {
            __builtin_prefetch(weight + i + FAR, 1);
            __builtin_prefetch(grad + i + FAR);
            __builtin_prefetch(mean + i + FAR, 1);
            __builtin_prefetch(square + i + FAR, 1);
            move(weight + i, grad + i, mean + i, square + i, new, BLOCK, k);
            if (copy) _mm256_stream_si256((__m256i *)(copy + i), _mm256_load_si256((const __m256i *)new));
        }
        move(weight + i, grad + i, mean + i, square + i, new, end - i, k);
        if (copy) memcpy(copy + i, new, (size_t)(end - i) * sizeof(half));
        _mm_sfence();
    }
}

/* ---- dropout, residual, layer norm ---- */

struct drop {
    uint32_t seed[2], level; /* an element falls if its 16 random bits are below the level */
    float scale, eps;
};

/* 32 bits for a counter: three rounds of a multiplicative hash with both halves of the seed between them. */
static inline uint32_t drawn(uint32_t counter, const struct drop *d) {
    uint32_t x = counter ^ d->seed[0];
    x = (x ^ x >> 17) * 0xed5ad4bbu;
    x = (x ^ x >> 11 ^ d->seed[1]) * 0xac4c1b51u;
    x = (x ^ x >> 15) * 0x31848babu;
    return x ^ x >> 14;
}

/* 16 random bits for each element of a row. */
static inline void draw_row(uint16_t *bits, size row, size width, const struct drop *d) {
    uint32_t pairs = (uint32_t)(width + 1) / 2, first = (uint32_t)row * pairs;
    for (uint32_t i = 0; i < pairs; i++) {
        uint32_t both = drawn(first + i, d);
        bits[i] = (uint16_t)both;
        bits[pairs + i] = (uint16_t)(both >> 16);
    }
}

/* out = norm(x + dropout(y)) * weight + bias; sum = x + dropout(y); stats "T 2": mean and 1 / deviation. All else "T D". */
void norm(const half *y, const half *x, const float *weight, const float *bias, half *sum, half *out, float *stats, size rows,
          size width, const struct drop *given, int threads) {
    struct drop d = *given;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size row = 0; row < rows; row++) {
        uint16_t bits[width + 1];
        float s[width], total = 0, squares = 0;
        const half *from = y + row * width, *beside = x + row * width;
        if (d.level) draw_row(bits, row, width, &d);
        else memset(bits, 0, sizeof bits);
        for (size i = 0; i < width; i++) s[i] = wide(beside[i]) + (bits[i] >= d.level ? wide(from[i]) * d.scale : 0);
#pragma omp simd reduction(+ : total)
        for (size i = 0; i < width; i++) total += s[i];
        float mean = total / width;
#pragma omp simd reduction(+ : squares)
        for (size i = 0; i < width; i++) squares += (s[i] - mean) * (s[i] - mean);
        float inverse = 1 / sqrtf(squares / width + d.eps);
        for (size i = 0; i < width; i++) {
            sum[row * width + i] = narrow(s[i]);
            out[row * width + i] = narrow((s[i] - mean) * inverse * weight[i] + bias[i]);
        }
        stats[2 * row] = mean, stats[2 * row + 1] = inverse;
    }
}

#define BAND 64

/* The gradients of y and x, and those of weight and bias: sums over bands of rows, added in their order. */
void norm_backward(const half *grad, const half *sum, const float *stats, const float *weight, half *dy, half *dx, float *both,
                   size rows, size width, const struct drop *given, int threads) {
    struct drop d = *given;
    size bands = (rows + BAND - 1) / BAND;
    float *parts = calloc((size_t)(bands * width * 2 + 1), sizeof(float));
    if (!parts) abort();
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size row_band = 0; row_band < bands; row_band++) {
        float *dweight = parts + row_band * width * 2, *dbias = dweight + width, g[width], n[width];
        uint16_t bits[width + 1];
        memset(bits, 0, sizeof bits);
        for (size row = row_band * BAND; row < least(rows, row_band * BAND + BAND); row++) {
            float mean = stats[2 * row], inverse = stats[2 * row + 1], total = 0, along = 0;
            const half *from = grad + row * width, *at = sum + row * width;
            if (d.level) draw_row(bits, row, width, &d);
            for (size i = 0; i < width; i++) {
                float v = wide(from[i]);
                n[i] = (wide(at[i]) - mean) * inverse;
                g[i] = v * weight[i];
                dweight[i] += v * n[i];
                dbias[i] += v;
            }
#pragma omp simd reduction(+ : total, along)
            for (size i = 0; i < width; i++) total += g[i], along += g[i] * n[i];
            total /= width, along /= width;
            for (size i = 0; i < width; i++) {
                float v = inverse * (g[i] - total - n[i] * along);
                dx[row * width + i] = narrow(v);
                dy[row * width + i] = narrow(bits[i] >= d.level ? v * d.scale : 0);
            }
        }
    }
    memset(both, 0, (size_t)width * 2 * sizeof(float));
    for (size row_band = 0; row_band < bands; row_band++)
        for (size i = 0; i < width * 2; i++) both[i] += parts[row_band * width * 2 + i];
    free(parts);
}

/* ---- attention of short sequences: what lies around its products ---- */

struct heads {
    size sequences, count, width; /* a token is "H K" */
};

/* Where sequences lie, four rows "S": first token, length, length with padding, first row once laid out. */
struct places {
    const size *start, *length, *longest, *row;
};

static struct places read_places(const size *table, size sequences) {
    return (struct places){table, table + sequences, table + 2 * sequences, table + 3 * sequences};
}

/* "T H K" -> for each sequence "H L K", with zeros where it is padded. */
void lay_out(const half *from, half *to, const size *table, const struct heads *given, int threads) {
    struct heads h = *given;
    struct places p = read_places(table, h.sequences);
    size bytes = h.width * (size)sizeof(half);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size s = 0; s < h.sequences; s++)
        for (size i = 0; i < p.longest[s]; i++)
            for (size head = 0; head < h.count; head++) {
                half *place = to + (p.row[s] + head * p.longest[s] + i) * h.width;
                if (i < p.length[s]) memcpy(place, from + ((p.start[s] + i) * h.count + head) * h.width, bytes);
                else memset(place, 0, bytes);
            }
}

/* The way back. */
void take_back(const half *from, half *to, const size *table, const struct heads *given, int threads) {
    struct heads h = *given;
    struct places p = read_places(table, h.sequences);
    size bytes = h.width * (size)sizeof(half);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size s = 0; s < h.sequences; s++)
        for (size i = 0; i < p.length[s]; i++)
            for (size head = 0; head < h.count; head++)
                memcpy(to + ((p.start[s] + i) * h.count + head) * h.width,
                       from + (p.row[s] + head * p.longest[s] + i) * h.width, bytes);
}

/* e^x for x <= 0, within 1e-7 of its value; below -87 it is as good as 0, and NaN is taken for that. */
static inline float exponential(float x) {
    uint32_t whole;
    memcpy(&whole, &x, 4);
    whole &= 0x7fffffff;
    whole = whole < 0x42ae0000 ? whole : 0x42ae0000; /* 87: as whole numbers, since a compiler vectorises that */
    memcpy(&x, &whole, 4);
    x = -x;
    int32_t n = (int32_t)(x * 1.44269504f - 0.5f);
    float r = x - (float)n * 0.693359375f + (float)n * 2.12194440e-4f, power;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    uint32_t bits = (uint32_t)(n + 127) << 23;
    memcpy(&power, &bits, 4);
    return (p * r * r + r + 1) * power;
}

#define WIDE 16 /* rows are short: what is left after the last whole block of numbers would cost more than they */
#define TOGETHER 16

/* softmax(scale * row) of some rows "count blocks", made up to whole blocks with the least number. */
static void softmax_rows(half *rows, float *e, size count, size blocks, float scale) {
    int16_t tops[TOGETHER];
    float sums[TOGETHER];
    for (size i = 0; i < count; i++) {
        const half *row = rows + i * blocks;
        int16_t most = INT16_MIN; /* of bits that are ordered as their numbers */
        for (size j = 0; j < blocks; j++) {
            int16_t bits = (int16_t)row[j], key = bits ^ ((bits >> 15) & 0x7fff);
            most = key > most ? key : most;
        }
        tops[i] = most ^ ((most >> 15) & 0x7fff);
    }
    for (size i = 0; i < count; i++) {
        float top = wide((half)tops[i]), sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size j = 0; j < blocks; j++) {
            float x = wide(rows[i * blocks + j]);
            e[i * blocks + j] = exponential((x - top) * scale);
            sum += e[i * blocks + j] + (x - x); /* what is no number stays none */
        }
        sums[i] = sum;
    }
    for (size i = 0; i < count; i++) {
        float share = 1 / sums[i];
        for (size j = 0; j < blocks; j++) rows[i * blocks + j] = narrow(e[i * blocks + j] * share);
    }
}

/* scores "S H L L" -> softmax(scale * scores) in their place, 0 where a sequence ("S", its length) is padded. */
void softmax(half *scores, const size *length, size longest, const struct heads *given, float scale, int threads) {
    struct heads h = *given;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size task = 0; task < h.sequences * h.count; task++) {
        size n = length[task / h.count], blocks = (n + WIDE - 1) / WIDE * WIDE;
        half rows[TOGETHER * blocks], *block = scores + task * longest * longest;
        float e[TOGETHER * blocks];
        for (size first = 0; first < n; first += TOGETHER) {
            size count = least(TOGETHER, n - first);
            for (size i = 0; i < count; i++) {
                memcpy(rows + i * blocks, block + (first + i) * longest, (size_t)n * sizeof(half));
                for (size j = n; j < blocks; j++) rows[i * blocks + j] = 0xff7f; /* the least number */
            }
            softmax_rows(rows, e, count, blocks, scale);
            for (size i = 0; i < count; i++) {
                memcpy(block + (first + i) * longest, rows + i * blocks, (size_t)n * sizeof(half));
                memset(block + (first + i) * longest + n, 0, (size_t)(longest - n) * sizeof(half));
            }
        }
        memset(block + n * longest, 0, (size_t)((longest - n) * longest) * sizeof(half));
    }
}

/* The gradient of the weights "S H L L" -> that of the scores, in its place. Where padding is, the weights are 0. */
void softmax_backward(half *grad, const half *weights, size rows, size longest, float scale, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size r = 0; r < rows; r++) {
        half *g = grad + r * longest;
        const half *w = weights + r * longest;
        float along = 0;
#pragma omp simd reduction(+ : along)
        for (size j = 0; j < longest; j++) along += wide(g[j]) * wide(w[j]);
        for (size j = 0; j < longest; j++) g[j] = narrow(wide(w[j]) * (wide(g[j]) - along) * scale);
    }
}

/* ---- attention of short sequences, head by head: products in float32, since those of a library cost more to begin ---- */

typedef float lanes __attribute__((vector_size(64)));

#define ROWS 4    /* of a product at a time: with two columns of lanes they fill the registers */
#define QUERIES 16 /* whose scores are there at a time */

/* A matrix that is read a number at a time. */
struct matrix {
    const float *at;
    size row, step;
};

/* c (+)= a b of `count` rows and `wide` columns of lanes. */
static inline __attribute__((always_inline)) void product_block(struct matrix a, const float *b, size b_row, float *c, size c_row,
                                                                int count, int columns, size inner, int add) {
    lanes sum[ROWS][2];
    for (int i = 0; i < count; i++)
        for (int j = 0; j < columns; j++) {
            if (add) memcpy(&sum[i][j], c + i * c_row + j * BLOCK, sizeof(lanes));
            else sum[i][j] = (lanes){0};
        }
    for (size k = 0; k < inner; k++) {
        lanes from[2];
        for (int j = 0; j < columns; j++) memcpy(&from[j], b + k * b_row + j * BLOCK, sizeof(lanes));
        for (int i = 0; i < count; i++) {
            float x = a.at[i * a.row + k * a.step];
            for (int j = 0; j < columns; j++) sum[i][j] += x * from[j];
        }
    }
    for (int i = 0; i < count; i++)
        for (int j = 0; j < columns; j++) memcpy(c + i * c_row + j * BLOCK, &sum[i][j], sizeof(lanes));
}

/* c (+)= a b; the columns are whole lanes. */
static void product(struct matrix a, const float *b, size b_row, float *c, size c_row, size rows, size inner, size columns, int add) {
    for (size j = 0; j < columns; j += 2 * BLOCK) {
        int two = j + BLOCK < columns;
        size i = 0;
        for (; i + ROWS <= rows; i += ROWS) {
            struct matrix from = {a.at + i * a.row, a.row, a.step};
            if (two) product_block(from, b + j, b_row, c + i * c_row + j, c_row, ROWS, 2, inner, add);
            else product_block(from, b + j, b_row, c + i * c_row + j, c_row, ROWS, 1, inner, add);
        }
        for (; i < rows; i++) {
            struct matrix from = {a.at + i * a.row, a.row, a.step};
            if (two) product_block(from, b + j, b_row, c + i * c_row + j, c_row, 1, 2, inner, add);
            else product_block(from, b + j, b_row, c + i * c_row + j, c_row, 1, 1, inner, add);
        }
    }
}

static inline size whole(size n) { return (n + BLOCK - 1) / BLOCK * BLOCK; }

/* Rows "L K" of one head -> float32, made up to whole lanes with 0. */
static void unpack(const half *from, size from_row, float *to, size rows, size width) {
    size full = whole(width);
    for (size i = 0; i < rows; i++) {
        for (size k = 0; k < width; k++) to[i * full + k] = wide(from[i * from_row + k]);
        for (size k = width; k < full; k++) to[i * full + k] = 0;
    }
}

/* The same, turned: "K L". */
static void unpack_turned(const half *from, size from_row, float *to, size rows, size width) {
    size full = whole(rows);
    for (size k = 0; k < width; k++) {
        for (size i = 0; i < rows; i++) to[k * full + i] = wide(from[i * from_row + k]);
        for (size i = rows; i < full; i++) to[k * full + i] = 0;
    }
}

static void pack(const float *from, half *to, size to_row, size rows, size width) {
    size full = whole(width);
    for (size i = 0; i < rows; i++)
        for (size k = 0; k < width; k++) to[i * to_row + k] = narrow(from[i * full + k]);
}

struct attention {
    size sequences, heads, width, longest; /* a token is "H K"; no sequence has more keys than `longest` */
    int causal;
    float scale;
};

static float *desk(size numbers) {
    float *found = aligned_alloc(64, (size_t)whole(numbers) * sizeof(float));
    if (!found) abort();
    return found;
}

/* softmax(scale q k^T) v of each sequence and head; q, out "T H K", k, v "M H K"; `logs` "T H": of the sum of a row's powers.
 * `table`, four rows "S": first query, queries, first key, keys. */
void attend(const half *q, const half *k, const half *v, half *out, float *logs, const size *table, const struct attention *given,
            int threads) {
    struct attention g = *given;
    size row = g.heads * g.width, full = whole(g.width), most = whole(g.longest);
#pragma omp parallel num_threads(threads)
    {
        float *keys = desk(g.width * most + g.longest * full + QUERIES * (most + 2 * full));
        float *values = keys + g.width * most, *scores = values + g.longest * full, *asked = scores + QUERIES * most;
        float *heard = asked + QUERIES * full;
#pragma omp for schedule(dynamic)
        for (size task = 0; task < g.sequences * g.heads; task++) {
            size s = task / g.heads, head = task % g.heads, first = table[s], n = table[g.sequences + s];
            size other = table[2 * g.sequences + s], m = table[3 * g.sequences + s], columns = whole(m);
            unpack_turned(k + other * row + head * g.width, row, keys, m, g.width);
            unpack(v + other * row + head * g.width, row, values, m, g.width);
            for (size top = 0; top < n; top += QUERIES) {
                size rows = least(QUERIES, n - top), seen = g.causal ? least(m, top + rows) : m;
                size at = (first + top) * row + head * g.width;
                float shares[QUERIES];
                unpack(q + at, row, asked, rows, g.width);
                product((struct matrix){asked, full, 1}, keys, columns, scores, columns, rows, g.width, whole(seen), 0);
                for (size i = 0; i < rows; i++) {
                    float *x = scores + i * columns, best = -INFINITY, sum = 0;
                    size own = g.causal ? least(m, top + i + 1) : m;
                    for (size j = 0; j < own; j++) best = x[j] > best ? x[j] : best;
#pragma omp simd reduction(+ : sum)
                    for (size j = 0; j < own; j++) {
                        float y = x[j];
                        x[j] = exponential((y - best) * g.scale) + (y - y); /* what is no number stays none */
                        sum += x[j];
                    }
                    for (size j = own; j < whole(seen); j++) x[j] = 0;
                    shares[i] = 1 / sum;
                    logs[(first + top + i) * g.heads + head] = best * g.scale + logf(sum);
                }
                product((struct matrix){scores, columns, 1}, values, full, heard, full, rows, seen, full, 0);
                for (size i = 0; i < rows; i++)
                    for (size c = 0; c < full; c++) heard[i * full + c] *= shares[i];
                pack(heard, out + at, row, rows, g.width);
            }
        }
        free(keys);
    }
}

/* The gradients of q, k and v from that of the output. */
void attend_backward(const half *q, const half *k, const half *v, const half *grad, const float *logs, half *dq, half *dk, half *dv,
                     const size *table, const struct attention *given, int threads) {
    struct attention g = *given;
    size row = g.heads * g.width, full = whole(g.width), most = whole(g.longest);
#pragma omp parallel num_threads(threads)
    {
        float *keys = desk(2 * g.width * most + 3 * g.longest * full + QUERIES * (2 * most + 3 * full));
        float *values = keys + g.width * most, *plain = values + g.width * most, *to_keys = plain + g.longest * full;
        float *to_values = to_keys + g.longest * full, *shares = to_values + g.longest * full, *slopes = shares + QUERIES * most;
        float *asked = slopes + QUERIES * most, *heard = asked + QUERIES * full, *to_asked = heard + QUERIES * full;
#pragma omp for schedule(dynamic)
        for (size task = 0; task < g.sequences * g.heads; task++) {
            size s = task / g.heads, head = task % g.heads, first = table[s], n = table[g.sequences + s];
            size other = table[2 * g.sequences + s], m = table[3 * g.sequences + s], columns = whole(m);
            size there = other * row + head * g.width;
            unpack_turned(k + there, row, keys, m, g.width);
            unpack_turned(v + there, row, values, m, g.width);
            unpack(k + there, row, plain, m, g.width);
            memset(to_keys, 0, (size_t)(m * full) * sizeof(float));
            memset(to_values, 0, (size_t)(m * full) * sizeof(float));
            for (size top = 0; top < n; top += QUERIES) {
                size rows = least(QUERIES, n - top), seen = g.causal ? least(m, top + rows) : m;
                size at = (first + top) * row + head * g.width;
                unpack(q + at, row, asked, rows, g.width);
                unpack(grad + at, row, heard, rows, g.width);
                product((struct matrix){asked, full, 1}, keys, columns, shares, columns, rows, g.width, whole(seen), 0);
                product((struct matrix){heard, full, 1}, values, columns, slopes, columns, rows, g.width, whole(seen), 0);
                for (size i = 0; i < rows; i++) {
                    float *p = shares + i * columns, *d = slopes + i * columns, along = 0;
                    float log = logs[(first + top + i) * g.heads + head];
                    size own = g.causal ? least(m, top + i + 1) : m;
#pragma omp simd reduction(+ : along)
                    for (size j = 0; j < own; j++) {
                        float y = p[j] * g.scale - log;
                        p[j] = exponential(y) + (y - y);
                        along += p[j] * d[j];
                    }
                    for (size j = 0; j < own; j++) d[j] = p[j] * (d[j] - along) * g.scale;
                    for (size j = own; j < whole(seen); j++) p[j] = d[j] = 0;
                }
                product((struct matrix){slopes, columns, 1}, plain, full, to_asked, full, rows, seen, full, 0);
                product((struct matrix){slopes, 1, columns}, asked, full, to_keys, full, seen, rows, full, 1);
                product((struct matrix){shares, 1, columns}, heard, full, to_values, full, seen, rows, full, 1);
                pack(to_asked, dq + at, row, rows, g.width);
            }
            pack(to_keys, dk + there, row, m, g.width);
            pack(to_values, dv + there, row, m, g.width);
        }
        free(keys);
    }
}

/* ---- while a text is written: the likeliest tokens, and attention over what is kept of it ---- */

#define SPAN (4 * BLOCK) /* scores of which the highest is sought first */

/* Puts a number that is above the last of the `count` highest so far among them; the first of equal ones stays first. */
static inline void take(float x, size at, float *best, size *place, size count) {
    size i = count - 1;
    for (; i > 0 && best[i - 1] < x; i--) best[i] = best[i - 1], place[i] = place[i - 1];
    best[i] = x, place[i] = at;
}

/* Of a span of `n` scores, NaN among them not counted. */
static inline float highest_of(const float *x, size n) {
    __m512 most = _mm512_set1_ps(-INFINITY);
    for (size i = 0; i < n; i += BLOCK) {
        __mmask16 there = n - i < BLOCK ? (__mmask16)((1u << (n - i)) - 1) : (__mmask16)0xffff;
        most = _mm512_mask_max_ps(most, there, _mm512_maskz_loadu_ps(there, x + i), most);
    }
    return _mm512_reduce_max_ps(most);
}

/* e^(x - most); what is no number stays none. */
static inline float power_of(float x, float most) { return exponential(x - most) + (x == x ? 0 : NAN); }

/* The `count` highest of each row of scores "N V" as log-likelihoods "N C", the highest first, and where they stand "N C".
 * Nothing can be above the last of them but in spans whose own highest is. What is no number makes its row none. */
void likeliest(const float *scores, size rows, size columns, size count, float *best, size *place, int threads) {
    size spans = (columns + SPAN - 1) / SPAN;
#pragma omp parallel num_threads(threads)
    {
        float *tops = desk(spans);
#pragma omp for schedule(static)
        for (size row = 0; row < rows; row++) {
            const float *x = scores + row * columns;
            float *top = best + row * count;
            size *at = place + row * count;
            for (size i = 0; i < count; i++) top[i] = -INFINITY, at[i] = 0;
            for (size s = 0; s < spans; s++) {
                tops[s] = highest_of(x + s * SPAN, least(SPAN, columns - s * SPAN));
                if (tops[s] > top[count - 1]) take(tops[s], s, top, at, count);
            }
            float most = top[0], bound = top[count - 1], sums[BLOCK] = {0}, sum = 0;
            for (size i = 0; i < count; i++) top[i] = -INFINITY;
            for (size s = 0; s < spans; s++)
                for (size i = s * SPAN; tops[s] >= bound && i < least(columns, (s + 1) * SPAN); i++)
                    if (x[i] >= bound && x[i] > top[count - 1]) take(x[i], i, top, at, count);
            size even = columns / BLOCK * BLOCK;
            for (size i = 0; i < even; i += BLOCK)
                for (size j = 0; j < BLOCK; j++) sums[j] += power_of(x[i + j], most);
            for (size i = even; i < columns; i++) sums[i - even] += power_of(x[i], most);
            for (size j = 0; j < BLOCK; j++) sum += sums[j];
            for (size i = 0; i < count; i++) top[i] -= most + logf(sum);
        }
        free(tops);
    }
}

struct past {
    size texts, room, heads, shared, width, columns, window;
    float scale;
};

#define WIDEST 16 /* lanes of a head at most */

/* One text of `look_back`: `places`, where each of its n tokens lies; `share`, room for n made up to whole lanes. A head has
 * `blocks` lanes, of whose last one `rest` are numbers. */
static inline __attribute__((always_inline)) void look(const float *q, const float *k, const float *v, float *out, const size *places,
                                                       size n, float *share, const struct past *g, int blocks, __mmask16 rest) {
#define LOAD(at, b) _mm512_maskz_loadu_ps((b) + 1 < blocks ? (__mmask16)0xffff : rest, (at) + (b) * BLOCK)
    for (size head = 0, told = 0; head < g->heads; head++, told += head % g->shared ? 0 : g->width) {
        const float *asked = q + head * g->width;
        __m512 heard[WIDEST], sums = _mm512_setzero_ps();
        for (size j = 0; j < n; j++) {
            __m512 sum = _mm512_setzero_ps();
            for (int b = 0; b < blocks; b++) sum = _mm512_fmadd_ps(LOAD(asked, b), LOAD(k + places[j] + told, b), sum);
            share[j] = _mm512_reduce_add_ps(sum) * g->scale;
        }
        float most = highest_of(share, n);
        for (size j = n; j < whole(n); j++) share[j] = -INFINITY;
        for (size j = 0; j < whole(n); j += BLOCK) {
            for (size i = 0; i < BLOCK; i++) share[j + i] = power_of(share[j + i], most);
            sums = _mm512_add_ps(sums, _mm512_load_ps(share + j));
        }
        float part = 1 / _mm512_reduce_add_ps(sums);
        for (int b = 0; b < blocks; b++) heard[b] = _mm512_setzero_ps();
        for (size j = 0; j < n; j++) {
            __m512 one = _mm512_set1_ps(share[j] * part);
            for (int b = 0; b < blocks; b++) heard[b] = _mm512_fmadd_ps(one, LOAD(v + places[j] + told, b), heard[b]);
        }
        for (int b = 0; b < blocks; b++)
            _mm512_mask_storeu_ps(out + head * g->width + b * BLOCK, b + 1 < blocks ? (__mmask16)0xffff : rest, heard[b]);
    }
#undef LOAD
}

/* softmax(scale q k^T) v of one token of each text; q, out "N H K", k, v "R L G K", of which each serves `shared` heads. A text
 * sees its first `lengths` "N" tokens, at most `longest`, the last `window` of them alone where that is not 0. They lie in
 * the row of its number, or in that of `rows` "N", or each in its own of `origin` "N P". */
void look_back(const float *q, const float *k, const float *v, float *out, const size *lengths, size longest, const size *rows,
               const size *origin, const struct past *given, int threads) {
    struct past g = *given;
    size step = g.heads / g.shared * g.width, full = g.heads * g.width;
#pragma omp parallel num_threads(threads)
    {
        float *shares = desk(whole(longest) + 2 * longest);
        size *places = (size *)(shares + whole(longest));
        int blocks = (int)((g.width + BLOCK - 1) / BLOCK);
        __mmask16 rest = (__mmask16)(0xffff >> (blocks * BLOCK - g.width));
#pragma omp for schedule(static)
        for (size text = 0; text < g.texts; text++) {
            size n = lengths[text], first = g.window && n > g.window ? n - g.window : 0;
            for (size j = first; j < n; j++) {
                size row = origin ? origin[text * g.columns + j] : rows ? rows[text] : text;
                places[j - first] = (row * g.room + j) * step;
            }
            const float *asked = q + text * full;
            float *heard = out + text * full;
            if (g.width == 2 * BLOCK) look(asked, k, v, heard, places, n - first, shares, &g, 2, 0xffff);
            else if (g.width == 4 * BLOCK) look(asked, k, v, heard, places, n - first, shares, &g, 4, 0xffff);
            else look(asked, k, v, heard, places, n - first, shares, &g, blocks, rest);
        }
        free(shares);
    }
}
