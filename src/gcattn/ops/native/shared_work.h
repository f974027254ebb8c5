/* Work shared by threads. The caller takes blocks like everybody else and never waits for a thread
   that has not begun: on a busy machine it does all of them itself. */

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

/* SPINS: about 50 microseconds, longer than what is between two kernels of a token */
enum { MAX_THREADS = 64, SPINS = 2000 };

typedef void (*work)(const void *arguments, int64_t block);

static struct {
    work run;
    const void *arguments;
    int64_t num_blocks;
    atomic_long next;
    atomic_int is_open, num_inside, num_asleep;
    atomic_uint round;
    int num_workers;
} shared;
static pthread_mutex_t one_caller = PTHREAD_MUTEX_INITIALIZER, bed = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t alarm_clock = PTHREAD_COND_INITIALIZER;

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_blocks(void) {
    int64_t block;
    while ((block = atomic_fetch_add(&shared.next, 1)) < shared.num_blocks)
        shared.run(shared.arguments, block);
}

static void *worker(void *nothing) {
    unsigned seen = 0;
    for (;;) {
        for (int i = 0; i < SPINS && atomic_load(&shared.round) == seen; i++) relax();
        if (atomic_load(&shared.round) == seen) {
            pthread_mutex_lock(&bed);
            atomic_fetch_add(&shared.num_asleep, 1);
            while (atomic_load(&shared.round) == seen) pthread_cond_wait(&alarm_clock, &bed);
            atomic_fetch_sub(&shared.num_asleep, 1);
            pthread_mutex_unlock(&bed);
        }
        seen = atomic_load(&shared.round);
        atomic_fetch_add(&shared.num_inside, 1);
        if (atomic_load(&shared.is_open)) take_blocks();
        atomic_fetch_sub(&shared.num_inside, 1);
    }
    return nothing;
}

static void forget_workers(void) { /* a forked process has none */
    shared.num_workers = 0;
    atomic_store(&shared.is_open, 0);
    atomic_store(&shared.num_inside, 0);
    atomic_store(&shared.num_asleep, 0);
    pthread_mutex_init(&one_caller, 0);
    pthread_mutex_init(&bed, 0);
    pthread_cond_init(&alarm_clock, 0);
}

static void hire(int num_workers) {
    static int is_registered = 0;
    if (!is_registered) is_registered = !pthread_atfork(0, 0, forget_workers);
    while (is_registered && shared.num_workers < num_workers && shared.num_workers < MAX_THREADS) {
        pthread_t thread;
        if (pthread_create(&thread, 0, worker, 0)) return;
        pthread_detach(thread);
        shared.num_workers++;
    }
}

static void share(work run, const void *arguments, int64_t num_blocks, int64_t num_threads) {
    if (num_threads < 2 || num_blocks < 2 || pthread_mutex_trylock(&one_caller)) {
        for (int64_t block = 0; block < num_blocks; block++) run(arguments, block);
        return;
    }
    hire(num_threads - 1);
    shared.run = run, shared.arguments = arguments, shared.num_blocks = num_blocks;
    atomic_store(&shared.next, 0);
    atomic_store(&shared.is_open, 1);
    atomic_fetch_add(&shared.round, 1);
    if (atomic_load(&shared.num_asleep)) {
        pthread_mutex_lock(&bed);
        pthread_cond_broadcast(&alarm_clock);
        pthread_mutex_unlock(&bed);
    }
    take_blocks();
    atomic_store(&shared.is_open, 0);
    while (atomic_load(&shared.num_inside)) relax();
    pthread_mutex_unlock(&one_caller);
}
