/* Kernels of a decoded token on a CPU: a few columns, no gradient.

   Compiled once for each dtype of the tensors: `value` is float, or with -DBFLOAT16 a bfloat16. All
   arithmetic is in float, and results are rounded where PyTorch's operators round theirs.

   A kernel takes a struct of its arguments, each 8 bytes wide, so that many calls can be kept in a
   table and be run without Python between them.

   Letters: B batch, M rows, n input size, N output size or keys, H query heads, G key/value heads,
   D head dim (at most MAX_D), K chunks, S slots per chunk. Tensors lie in one piece unless a stride
   is given. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "shared_work.h"

struct call {
    void (*kernel)(const void *arguments);
    const void *arguments;
};

struct table {
    const struct call *calls;
    int64_t count;
};

/* Calls one after another. */
void run_calls(const void *arguments) {
    const struct table *p = arguments;
    for (int64_t i = 0; i < p->count; i++) p->calls[i].kernel(p->calls[i].arguments);
}

/* limits of what `calls.py` lets in, and the keys that are read at a time */
enum { MAX_D = 256, MAX_INPUT = 65536, TILE = 64 };

#ifdef BFLOAT16
typedef uint16_t value;
static inline float widen(value x) {
    uint32_t bits = (uint32_t)x << 16;
    float wide;
    memcpy(&wide, &bits, 4);
    return wide;
}
static inline value narrow(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0; /* NaN */
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;   /* to the nearest, ties to even */
}
#else
typedef float value;
static inline float widen(value x) { return x; }
static inline value narrow(float x) { return x; }
#endif
static inline float rounded(float x) { return widen(narrow(x)); }

/* Linear maps of the same x [M, n], weights [N, n] -> outputs [M, N]. Weights are most of what a token
   reads, and they arrive fastest in their order: row by row, and asked for ahead of time. */

enum { LANES = 8, AHEAD = 4096 /* bytes */, MAX_MAPS = 3 };
typedef float floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

struct map {
    const value *weight; /* null: there are fewer maps */
    value *out;
    int64_t N;
};

struct maps {
    const value *x;
    struct map maps[MAX_MAPS];
    float *scores; /* instead of the first map's out, if not null: not rounded, times scale */
    int64_t M, n, num_threads;
    double scale;
};

struct maps_work {
    const struct maps *maps;
    const float *x; /* as `widen_rows` leaves it */
    int64_t block;
};

static inline float sum_of(floats a, floats b, floats c, floats d) {
    float sum = 0;
    a = (a + b) + (c + d);
    for (int i = 0; i < LANES; i++) sum += a[i];
    return sum;
}

#ifdef BFLOAT16
/* Two values make 32 bits, of which each is a float after one operation: so x [M, n] becomes the
   even values of each row, followed by its odd ones. n is even. */
static const float *widen_rows(const value *x, float *wide, int64_t M, int64_t n) {
    for (int64_t m = 0; m < M; m++, x += n)
        for (int64_t i = 0; i < n / 2; i++) {
            wide[m * n + i] = widen(x[2 * i]);
            wide[m * n + n / 2 + i] = widen(x[2 * i + 1]);
        }
    return wide;
}

typedef uint32_t pairs __attribute__((vector_size(4 * LANES), aligned(2), may_alias));
typedef uint32_t pair __attribute__((aligned(2), may_alias));

static inline float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static float product(const float *x, const value *row, int64_t n) {
    const float *even = x, *odd = x + n / 2;
    floats a = {0}, b = a, c = a, d = a;
    int64_t i = 0;
    for (; i + 2 * LANES <= n / 2; i += 2 * LANES) {
        __builtin_prefetch((const char *)(row + 2 * i) + AHEAD);
        pairs first = *(const pairs *)(row + 2 * i);
        pairs second = *(const pairs *)(row + 2 * (i + LANES));
        a += *(const floats *)(even + i) * (floats)(first << 16);
        b += *(const floats *)(odd + i) * (floats)(first & 0xffff0000);
        c += *(const floats *)(even + i + LANES) * (floats)(second << 16);
        d += *(const floats *)(odd + i + LANES) * (floats)(second & 0xffff0000);
    }
    float sum = sum_of(a, b, c, d);
    for (; i < n / 2; i++) sum += even[i] * widen(row[2 * i]) + odd[i] * widen(row[2 * i + 1]);
    return sum;
}

/* mixed += weight * x, [D], and what is left of it in the end: mixed is ordered like wide rows. */
static void add_times(float *restrict mixed, float weight, const value *x, int64_t D) {
    const pair *restrict at = (const pair *)x;
    float *odd = mixed + D / 2;
    for (int64_t i = 0; i < D / 2; i++) {
        mixed[i] += weight * float_of(at[i] << 16);
        odd[i] += weight * float_of(at[i] & 0xffff0000);
    }
}

static void narrow_row(const float *mixed, float scale, value *out, int64_t D) {
    for (int64_t d = 0; d < D; d++) out[d] = narrow(mixed[d % 2 * (D / 2) + d / 2] * scale);
}
#else
static const float *widen_rows(const value *x, float *wide, int64_t M, int64_t n) {
    (void)wide, (void)M, (void)n;
    return x;
}

static float product(const float *x, const value *row, int64_t n) {
    floats a = {0}, b = a, c = a, d = a;
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        __builtin_prefetch((const char *)(row + i) + AHEAD);
        __builtin_prefetch((const char *)(row + i) + AHEAD + 64);
        a += *(const floats *)(x + i) * *(const floats *)(row + i);
        b += *(const floats *)(x + i + LANES) * *(const floats *)(row + i + LANES);
        c += *(const floats *)(x + i + 2 * LANES) * *(const floats *)(row + i + 2 * LANES);
        d += *(const floats *)(x + i + 3 * LANES) * *(const floats *)(row + i + 3 * LANES);
    }
    float sum = sum_of(a, b, c, d);
    for (; i < n; i++) sum += x[i] * row[i];
    return sum;
}

static void add_times(float *restrict mixed, float weight, const value *restrict x, int64_t D) {
    for (int64_t d = 0; d < D; d++) mixed[d] += weight * x[d];
}

static void narrow_row(const float *mixed, float scale, value *out, int64_t D) {
    for (int64_t d = 0; d < D; d++) out[d] = mixed[d] * scale;
}
#endif

static int64_t num_blocks(const struct map *map, int64_t block) {
    return map->weight ? (map->N + block - 1) / block : 0;
}

static void map_block(const void *arguments, int64_t number) {
    const struct maps_work *work = arguments;
    const struct maps *p = work->maps;
    const struct map *map = p->maps;
    while (number >= num_blocks(map, work->block)) number -= num_blocks(map++, work->block);
    int64_t last = (number + 1) * work->block;
    if (last > map->N) last = map->N;
    for (int64_t o = number * work->block; o < last; o++)
        for (int64_t m = 0; m < p->M; m++) {
            float sum = product(work->x + m * p->n, map->weight + o * p->n, p->n);
            if (p->scores)
                p->scores[m * map->N + o] = sum * (float)p->scale;
            else
                map->out[m * map->N + o] = narrow(sum);
        }
}

void project(const void *arguments) {
    const struct maps *p = arguments;
    float wide[MAX_INPUT];
    struct maps_work work = {.maps = p, .x = widen_rows(p->x, wide, p->M, p->n)};
    work.block = (1 << 14) / (int64_t)(p->n * sizeof(value)) + 1;
    int64_t count = 0;
    for (int i = 0; i < MAX_MAPS; i++) count += num_blocks(p->maps + i, work.block);
    share(map_block, &work, count, p->num_threads);
}

/* x + added, [count]. */

struct sum {
    const value *x, *added;
    value *out;
    int64_t count;
};

void add(const void *arguments) {
    const struct sum *p = arguments;
    for (int64_t i = 0; i < p->count; i++) p->out[i] = narrow(widen(p->x[i]) + widen(p->added[i]));
}

/* Root mean square norm of x + added [M, n], which goes to total; added and total may be null. */

struct norm {
    const value *x, *added, *weight;
    value *total, *out;
    int64_t M, n;
    double eps;
};

void rms_norm(const void *arguments) {
    const struct norm *p = arguments;
    for (int64_t m = 0; m < p->M; m++) {
        const value *in = p->x + m * p->n;
        if (p->added) {
            value *total = p->total + m * p->n;
            const value *added = p->added + m * p->n;
            for (int64_t i = 0; i < p->n; i++) total[i] = narrow(widen(in[i]) + widen(added[i]));
            in = total;
        }
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < p->n; i++) squares += widen(in[i]) * widen(in[i]);
        float scale = 1 / sqrtf(squares / p->n + (float)p->eps);
        value *out = p->out + m * p->n;
        for (int64_t i = 0; i < p->n; i++)
            out[i] = narrow(widen(in[i]) * scale * widen(p->weight[i]));
    }
}

/* The last column of x [B, n, E], and to it those before it, each times its weights [n, E]; none
   from before position 0. The sum is rounded after each. */

struct convolution {
    const value *x, *weight;
    const int64_t *positions;
    value *out;
    int64_t B, n, E;
};

void mix_columns(const void *arguments) {
    const struct convolution *p = arguments;
    for (int64_t b = 0; b < p->B; b++)
        for (int64_t e = 0; e < p->E; e++) {
            const value *last = p->x + ((b + 1) * p->n - 1) * p->E + e;
            float sum = rounded(widen(*last) * widen(p->weight[e]));
            for (int64_t i = 1; i < p->n && i <= p->positions[b]; i++) {
                float weight = widen(p->weight[i * p->E + e]);
                sum = rounded(sum + rounded(widen(last[-i * p->E]) * weight));
            }
            p->out[b * p->E + e] = narrow(sum);
        }
}

/* Rotary positions: cosines and sines [B, D] of positions [B] times frequencies [D / 2]. */

struct angles {
    const int64_t *positions;
    const double *frequencies;
    value *cosine, *sine;
    int64_t B, D;
};

void rotary_angles(const void *arguments) {
    const struct angles *p = arguments;
    for (int64_t b = 0; b < p->B; b++)
        for (int64_t i = 0; i < p->D / 2; i++) {
            double angle = p->positions[b] * p->frequencies[i];
            int64_t first = b * p->D + i, second = first + p->D / 2;
            p->cosine[first] = p->cosine[second] = narrow(cos(angle));
            p->sine[first] = p->sine[second] = narrow(sin(angle));
        }
}

/* x [M, H, D] turned by cosines and sines [M, D]. */

struct rotation {
    const value *x, *cosine, *sine;
    value *out;
    int64_t M, H, D;
};

void rotate(const void *arguments) {
    const struct rotation *p = arguments;
    for (int64_t head = 0; head < p->M * p->H; head++) {
        const value *x = p->x + head * p->D, *cosine = p->cosine + head / p->H * p->D;
        const value *sine = p->sine + head / p->H * p->D;
        value *out = p->out + head * p->D;
        for (int64_t i = 0; i < p->D / 2; i++) {
            int64_t j = i + p->D / 2;
            float a = widen(x[i]), b = widen(x[j]);
            out[i] = narrow(rounded(a * widen(cosine[i])) + rounded(-b * widen(sine[i])));
            out[j] = narrow(rounded(b * widen(cosine[j])) + rounded(a * widen(sine[j])));
        }
    }
}

/* e^x for x <= 0, to 2e-7 of it: loops with it become vector code, which those with expf do not. */

static inline float exponential(float x) {
    x = x < -87 ? -87 : x;
    float n = rintf(x * 1.44269504f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1;
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}

/* silu(gate) * up, [count]. */

struct gate {
    const value *gate, *up;
    value *out;
    int64_t count;
};

void silu_times(const void *arguments) {
    const struct gate *p = arguments;
    for (int64_t i = 0; i < p->count; i++) {
        float x = widen(p->gate[i]), shrunk = exponential(-fabsf(x));
        float silu = x * (x < 0 ? shrunk : 1) / (1 + shrunk);
        p->out[i] = narrow(rounded(silu) * widen(p->up[i]));
    }
}

/* Write columns [B, G, D] into a ring [B, W, G, D] at the places at [B]. Strides of the ring: `row`
   from row to row, `step` from column to column, `head` from head to head. */

struct column {
    value *ring;
    const value *column;
    const int64_t *at;
    int64_t B, row, step, head, G, D;
};

void write_column(const void *arguments) {
    const struct column *p = arguments;
    for (int64_t b = 0; b < p->B; b++)
        for (int64_t g = 0; g < p->G; g++)
            memcpy(p->ring + b * p->row + p->at[b] * p->step + g * p->head,
                   p->column + (b * p->G + g) * p->D, p->D * sizeof(value));
}

/* Attention of one query to N keys [N, D], which are `step` values apart, tile by tile. */

struct reading {
    float q[MAX_D], mixed[MAX_D], highest, total;
};

static void begin_reading(struct reading *r, const value *q, int64_t D) {
    float scale = 1 / sqrtf(D);
    const float *wide = widen_rows(q, r->q, 1, D);
    for (int64_t d = 0; d < D; d++) r->q[d] = wide[d] * scale, r->mixed[d] = 0;
    r->highest = -INFINITY, r->total = 0;
}

static void read_keys(struct reading *r, const value *k, const value *v, const int64_t *documents,
                      int64_t document, float bias, int64_t N, int64_t step, int64_t D) {
    for (int64_t start = 0; start < N; start += TILE) {
        int64_t count = N - start < TILE ? N - start : TILE;
        float scores[TILE], highest = r->highest;
        for (int64_t j = 0; j < count; j++) {
            float score = product(r->q, k + (start + j) * step, D) + bias;
            if (documents && documents[start + j] != document) score = -INFINITY;
            scores[j] = score;
            highest = score > highest ? score : highest;
        }
        if (highest == -INFINITY) continue; /* nothing of this tile is seen */
        float fade = r->highest == -INFINITY ? 0 : exponential(r->highest - highest), sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < count; j++) {
            float weight = scores[j] == -INFINITY ? 0 : exponential(scores[j] - highest);
            scores[j] = weight;
            sum += weight;
        }
        r->total = r->total * fade + sum, r->highest = highest;
        for (int64_t d = 0; d < D; d++) r->mixed[d] *= fade;
        for (int64_t j = 0; j < count; j++)
            add_times(r->mixed, scores[j], v + (start + j) * step, D);
    }
}

/* One query of each row [B, H, D] and its window of N columns [B, N, G, D], whose strides have a
   name each; documents [B] and [B, N] may be null. */

struct window {
    const value *q, *k, *v;
    const int64_t *query_documents, *key_documents;
    value *out;
    int64_t B, N, H, G, D, row, step, head, num_threads;
};

static void window_head(const void *arguments, int64_t number) {
    const struct window *p = arguments;
    int64_t b = number / p->H, g = number % p->H / (p->H / p->G), D = p->D;
    int64_t at = b * p->row + g * p->head;
    const int64_t *documents = p->key_documents ? p->key_documents + b * p->N : 0;
    struct reading r;
    begin_reading(&r, p->q + number * D, D);
    read_keys(&r, p->k + at, p->v + at, documents, documents ? p->query_documents[b] : 0, 0, p->N,
              p->step, D);
    float scale = r.total > 0 ? 1 / r.total : 0; /* a query that sees nothing gives zero */
    narrow_row(r.mixed, scale, p->out + number * D, D);
}

void read_window(const void *arguments) {
    const struct window *p = arguments;
    share(window_head, p, p->B * p->H, p->num_threads);
}

/* One query of each row [B, H, D] and K chunks in its reach [B, K, N, G, D], each attended on its own
   and mixed by weights [B, K], or with one softmax over all of them. Rows of lengths [B, K] are
   `lengths_row` apart. A sink of minus infinity is none. */

struct chunks {
    const value *q, *k, *v;
    const float *weights;
    const int64_t *lengths;
    value *out;
    int64_t B, K, N, H, G, D, row, chunk, step, head, lengths_row, is_joint;
    double sink;
    int64_t num_threads;
};

/* Add what was read to out, times weight; a sink takes part in the softmax and gives nothing. */
static void mix(float *out, const struct reading *r, float weight, float sink, int64_t D) {
    float total = r->total, scale = 1;
    if (sink > -INFINITY) { /* it may be higher than every score */
        float highest = sink > r->highest ? sink : r->highest;
        scale = r->total > 0 ? exponential(r->highest - highest) : 0;
        total = total * scale + exponential(sink - highest);
    }
    if (total > 0)
        for (int64_t d = 0; d < D; d++) out[d] += weight * (r->mixed[d] * scale / total);
}

static void chunks_head(const void *arguments, int64_t number) {
    const struct chunks *p = arguments;
    int64_t b = number / p->H, g = number % p->H / (p->H / p->G), D = p->D;
    float out[MAX_D] = {0};
    struct reading r;
    begin_reading(&r, p->q + number * D, D);
    for (int64_t c = 0; c < p->K; c++) {
        float weight = p->weights[b * p->K + c];
        int64_t length = p->lengths[b * p->lengths_row + c];
        int64_t at = b * p->row + c * p->chunk + g * p->head;
        if (weight == 0 || length <= 0) continue;
        float bias = p->is_joint ? logf(weight) : 0;
        read_keys(&r, p->k + at, p->v + at, 0, 0, bias, length, p->step, D);
        if (p->is_joint) continue;
        mix(out, &r, weight, p->sink, D);
        begin_reading(&r, p->q + number * D, D);
    }
    if (p->is_joint) mix(out, &r, 1, p->sink, D);
    narrow_row(out, 1, p->out + number * D, D);
}

void read_chunks(const void *arguments) {
    const struct chunks *p = arguments;
    share(chunks_head, p, p->B * p->H, p->num_threads);
}
