/* One-way path: paced sender of trade frames, relay, and the two receivers (relayed JSON frames, v1 frames). */
#include "wire_ends.h"
#include <math.h>
#include <sys/prctl.h>

#define BUFFER_BYTES (1 << 20)

/* Send `count` trades, numbers first.., `burst` in each send, `rate` per second, on the clock's schedule. What is overdue
   is sent at once with `catch_up`; else the schedule moves, so that a late sender never makes a burst.
   frames: layout->symbols frames of frame_bytes each. late_ns[i]: how late send i began. Returns trades sent. */
int64_t paced_trades(int fd, const char *frames, const struct layout *at, int64_t base_ns, double rate, int64_t first,
                     int64_t count, int64_t burst, int catch_up, int64_t *late_ns) {
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    char *out = malloc(at->frame_bytes * burst);
    int64_t step = (int64_t)(1e9 * burst / rate), next = now_ns() + 2000000, sent = 0, wake = 0;
    while (sent < count) {
        sleep_until(next);
        int64_t began = now_ns(), wall_us = clock_ns(CLOCK_REALTIME) / 1000;
        late_ns[wake++] = began - next;
        if (!catch_up && began - next > step) next = began;
        int64_t size = count - sent < burst ? count - sent : burst;
        for (int64_t k = 0; k < size; k++) {
            int64_t number = first + sent + k;
            char *frame = out + k * at->frame_bytes;
            memcpy(frame, frames + (number % at->symbols) * at->frame_bytes, at->frame_bytes);
            fill_trade(frame, at, number, began - base_ns, wall_us);
        }
        if (send_all(fd, out, size * at->frame_bytes)) break;
        sent += size;
        next += step;
    }
    free(out);
    return sent;
}

/* Copy bytes until the source ends; with `spin` the source is polled and the core never sleeps. Returns bytes copied. */
int64_t relay(int source, int target, int spin) {
    char *buffer = malloc(1 << 18);
    int64_t total = 0;
    for (;;) {
        ssize_t got = recv(source, buffer, 1 << 18, spin ? MSG_DONTWAIT : 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (got <= 0 || send_all(target, buffer, got)) break;
        total += got;
    }
    free(buffer);
    return total;
}

static int64_t take_digits(const char *at, int count) {
    int64_t value = 0;
    for (int i = 0; i < count; i++) value = value * 10 + (at[i] - '0');
    return value;
}

/* Receive relayed trade frames. latency_ns[i] in the order of arrival; *wrong counts trades that are not the next one. */
int64_t receive_relayed(int fd, const struct layout *at, int64_t base_ns, int64_t first, int64_t count,
                        int64_t *latency_ns, int64_t *wrong) {
    char *buffer = malloc(BUFFER_BYTES);
    int64_t have = 0, taken = 0;
    *wrong = 0;
    while (taken < count) {
        ssize_t got = recv(fd, buffer + have, BUFFER_BYTES - have, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        int64_t arrived = now_ns() - base_ns, start = 0;
        have += got;
        while (have - start >= at->frame_bytes && taken < count) {
            const char *frame = buffer + start;
            const char *quantity = frame + at->quantity_at, *price = frame + at->price_at;
            int64_t stamp = take_digits(quantity, 5) * 100000000LL + take_digits(quantity + 6, 8) - STAMP_OFFSET;
            int64_t step = take_digits(price + 1, 4) * 100 + take_digits(price + 6, 2);
            *wrong += step != price_step(first + taken);
            latency_ns[taken++] = arrived - stamp;
            start += at->frame_bytes;
        }
        memmove(buffer, buffer + start, have - start);
        have -= start;
    }
    free(buffer);
    return taken;
}

/* Receive v1 frames. index_of[wire id] is the symbol's place or -1; next[place] the number of its next trade.
   Entries of volume 0 are snapshots and not counted. *frames counts binary frames. */
int64_t receive_v1(int fd, const int32_t *index_of, int64_t *next, int64_t symbols, int64_t base_ns, int64_t count,
                   int64_t *latency_ns, int64_t *wrong, int64_t *frames) {
    unsigned char *buffer = malloc(BUFFER_BYTES);
    int64_t have = 0, taken = 0;
    *wrong = *frames = 0;
    while (taken < count) {
        ssize_t got = recv(fd, buffer + have, BUFFER_BYTES - have, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        int64_t arrived = now_ns() - base_ns, start = 0, header = 0, size;
        have += got;
        while ((size = frame_size(buffer + start, have - start, &header)) && have - start >= size) {
            const unsigned char *entry = buffer + start + header + 6, *end = buffer + start + size;
            int binary = (buffer[start] & 15) == 2;
            *frames += binary;
            for (; binary && entry < end && taken < count; entry += 18) {
                uint16_t id;
                double price, volume;
                memcpy(&id, entry, 2);
                memcpy(&price, entry + 2, 8);
                memcpy(&volume, entry + 10, 8);
                if (volume == 0.0) continue;
                int32_t place = index_of[id];
                if (place < 0) {
                    ++*wrong;
                    continue;
                }
                *wrong += llround(price * 100.0) - 6000000LL != price_step(next[place]);
                next[place] += symbols;
                latency_ns[taken++] = arrived - (llround(volume * 1e8) - STAMP_OFFSET);
            }
            start += size;
        }
        memmove(buffer, buffer + start, have - start);
        have -= start;
    }
    free(buffer);
    return taken;
}
