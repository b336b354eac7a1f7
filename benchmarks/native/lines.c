/* Two lines and a client that keeps all: paced sender on every open line, and a receiver of whole frames. */
#include "wire_ends.h"
#include <sys/prctl.h>

/* Send `count` trades, numbers first.., one at a time, `rate` per second, on the clock's schedule, to every descriptor
   of fds[0..lines) that is not -1; odd numbers begin with the last one, so that all lines are first equally often. One that
   cannot be sent to becomes -1. lost[i] != 0: trade first + i happens, but no line brings it.
   stamps_ns[i]: when it happened, after base_ns. late_ns[i]: how late that was. *rounds counts trades: whoever takes a
   descriptor out of fds waits until it has moved on, then nothing is being sent to it. Returns the trades that happened. */
int64_t paced_on_lines(volatile int32_t *fds, int64_t lines, const char *frames, const struct layout *at, int64_t base_ns,
                       double rate, int64_t first, int64_t count, const uint8_t *lost, int64_t *stamps_ns, int64_t *late_ns,
                       volatile int64_t *rounds) {
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    char *frame = malloc(at->frame_bytes);
    int64_t step = (int64_t)(1e9 / rate), next = now_ns() + 2000000;
    for (int64_t i = 0; i < count; i++, next += step) {
        struct timespec until = {next / 1000000000LL, next % 1000000000LL};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
        }
        int64_t began = now_ns(), number = first + i;
        late_ns[i] = began - next;
        stamps_ns[i] = began - base_ns;
        if (!lost[i]) {
            memcpy(frame, frames + (number % at->symbols) * at->frame_bytes, at->frame_bytes);
            fill_trade(frame, at, number, began - base_ns, clock_ns(CLOCK_REALTIME) / 1000);
            for (int64_t k = 0; k < lines; k++) {
                int64_t place = number & 1 ? lines - 1 - k : k;
                int32_t fd = fds[place];
                if (fd >= 0 && send_all(fd, frame, at->frame_bytes)) __sync_bool_compare_and_swap(&fds[place], fd, -1);
            }
        }
        __sync_fetch_and_add(rounds, 1);
    }
    free(frame);
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
