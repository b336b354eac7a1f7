/* Two lines and a client that keeps all: paced sender on every open line, a receiver of whole frames. */
#include "wire_ends.h"
#include <sys/prctl.h>

/* Until a time of now_ns, by a timer or (`awake`) by looking at the clock. */
static void wait_until(int64_t at_ns, int awake) {
    if (!awake) return sleep_until(at_ns);
    while (now_ns() < at_ns) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
}

/* Send `count` trades, numbers first.., `burst` in each send, `rate` per second, on the clock's schedule, to every
   descriptor of fds[0..lines) that is not -1; every other send begins with the last one, so that all lines are first
   equally often. The other lines have send s lags_ns[s] later, as lines of two hosts do. One that cannot be sent to
   becomes -1. `awake`: see wait_until. lost[i] != 0: trade first + i happens, but no line brings it.
   stamps_ns[i]: when it happened, after base_ns. late_ns[i]: how late that was. *rounds counts trades: whoever takes a
   descriptor out of fds waits until it has moved on, then nothing is being sent to it. Returns the trades that happened. */
int64_t paced_on_lines(volatile int32_t *fds, int64_t lines, const char *frames, const struct layout *at, int64_t base_ns,
                       double rate, int64_t first, int64_t count, int64_t burst, const int64_t *lags_ns, int awake,
                       const uint8_t *lost, int64_t *stamps_ns, int64_t *late_ns, volatile int64_t *rounds) {
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    char *out = malloc(at->frame_bytes * burst);
    int64_t step = (int64_t)(1e9 * burst / rate), next = now_ns() + 2000000;
    for (int64_t i = 0; i < count; i += burst, next += step) {
        wait_until(next, awake);
        int64_t began = now_ns(), wall_us = clock_ns(CLOCK_REALTIME) / 1000, bytes = 0;
        int64_t end = count - i < burst ? count : i + burst;
        for (int64_t k = i; k < end; k++) {
            late_ns[k] = began - next;
            stamps_ns[k] = began - base_ns;
            if (lost[k]) continue;
            memcpy(out + bytes, frames + ((first + k) % at->symbols) * at->frame_bytes, at->frame_bytes);
            fill_trade(out + bytes, at, first + k, began - base_ns, wall_us);
            bytes += at->frame_bytes;
        }
        for (int64_t k = 0, sent = 0; bytes && k < lines; k++) {
            int64_t place = (first + i) / burst & 1 ? lines - 1 - k : k;
            if (fds[place] >= 0 && sent++ && lags_ns[i / burst]) wait_until(next + lags_ns[i / burst], awake);
            int32_t fd = fds[place];
            if (fd >= 0 && send_all(fd, out, bytes)) __sync_bool_compare_and_swap(&fds[place], fd, -1);
        }
        __sync_fetch_and_add(rounds, end - i);
    }
    free(out);
    return count;
}

/* Read WebSocket frames into `bytes`, one after the other as they come, until state[0] is set and nothing comes for the
   socket's receive time-out. frames[3 * i]: where payload i begins, its size * 16 + opcode, when its read returned after
   base_ns. state[1]: frames so far. Returns 0, -1 when the connection ended, -2 when there is no more room. */
int64_t keep_frames(int fd, int64_t base_ns, unsigned char *bytes, int64_t room, int64_t *frames, int64_t frames_max,
                    volatile int64_t *state) {
    int64_t have = 0, start = 0, count = 0, header = 0, size;
    for (;;) {
        if (have == room) return -2;
        ssize_t got = recv(fd, bytes + have, room - have, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EAGAIN) {
            if (state[0]) return 0;
            continue;
        }
        if (got <= 0) return -1;
        int64_t arrived = now_ns() - base_ns;
        have += got;
        while ((size = frame_size(bytes + start, have - start, &header)) && have - start >= size) {
            if (count == frames_max) return -2;
            int64_t *frame = frames + 3 * count++;
            frame[0] = start + header;
            frame[1] = (size - header) * 16 + (bytes[start] & 15);
            frame[2] = arrived;
            start += size;
        }
        __sync_lock_test_and_set(&state[1], count);
    }
}
