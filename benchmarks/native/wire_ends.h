/* Shared by the C helpers of the benchmarks: clocks, whole reads and writes, decimal digits, one trade frame. */
#ifndef WIRE_ENDS_H
#define WIRE_ENDS_H
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define STAMP_OFFSET 1000000000000LL /* keeps the stamp at 13 digits, so a quantity of dddd.ddddddddd never starts with 0 */
#define PRICE_STEPS 1000000LL        /* prices run through 60000.00 .. 69999.99, scattered, so new highs are rare */
#define PRICE_STRIDE 7919LL

static inline int64_t clock_ns(clockid_t which) {
    struct timespec t;
    clock_gettime(which, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static inline int64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

/* On the clock of now_ns. */
static inline void sleep_until(int64_t at_ns) {
    struct timespec until = {at_ns / 1000000000LL, at_ns % 1000000000LL};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
    }
}

/* Send everything, on blocking and non-blocking sockets alike. 0, or -1 when the peer is gone. */
static inline int send_all(int fd, const char *bytes, int64_t size) {
    int64_t done = 0;
    while (done < size) {
        ssize_t sent = send(fd, bytes + done, size - done, MSG_NOSIGNAL);
        if (sent > 0) {
            done += sent;
        } else if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
            struct pollfd wait = {fd, POLLOUT, 0};
            poll(&wait, 1, 1000);
        } else {
            return -1;
        }
    }
    return 0;
}

static inline void put_digits(char *at, int count, int64_t value) {
    for (int i = count - 1; i >= 0; i--) {
        at[i] = (char)('0' + value % 10);
        value /= 10;
    }
}

/* The scattered price of trade `number` in cents above 60000.00. */
static inline int64_t price_step(int64_t number) { return (number * PRICE_STRIDE) % PRICE_STEPS; }

/* Where the digits of one trade frame stand. Trade number n goes to symbol n % symbols with id first_id + n / symbols. */
struct layout {
    int64_t frame_bytes, symbols, first_id;
    int64_t id_at;       /* 10 digits */
    int64_t price_at;    /* "6dddd.dd000000" */
    int64_t quantity_at; /* "ddddd.dddddddd": the stamp */
    int64_t event_at;    /* 16 digits, us since 1970 */
    int64_t match_at;    /* 16 digits, us since 1970 */
};

static inline void fill_trade(char *frame, const struct layout *at, int64_t number, int64_t stamp_ns, int64_t wall_us) {
    int64_t step = price_step(number), stamp = stamp_ns + STAMP_OFFSET;
    put_digits(frame + at->id_at, 10, at->first_id + number / at->symbols);
    put_digits(frame + at->price_at + 1, 4, step / 100);
    put_digits(frame + at->price_at + 6, 2, step % 100);
    put_digits(frame + at->quantity_at, 5, stamp / 100000000LL);
    put_digits(frame + at->quantity_at + 6, 8, stamp % 100000000LL);
    put_digits(frame + at->event_at, 16, wall_us);
    put_digits(frame + at->match_at, 16, wall_us);
}

/* Header and payload size of the WebSocket frame at `at`; 0 when fewer than `have` bytes would be needed to tell. */
static inline int64_t frame_size(const unsigned char *at, int64_t have, int64_t *header) {
    if (have < 2) return 0;
    int64_t size = at[1] & 127;
    *header = 2;
    if (size == 126) {
        if (have < 4) return 0;
        size = (at[2] << 8) | at[3];
        *header = 4;
    } else if (size == 127) {
        if (have < 10) return 0;
        size = 0;
        for (int i = 2; i < 10; i++) size = (size << 8) | at[i];
        *header = 10;
    }
    return *header + size;
}
#endif
