/* Fan-out: the C send loop (the floor), and the driver that triggers a broadcast and waits for the last subscriber. */
#include "wire_ends.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

/* The server: for every `trigger_bytes` read, send one frame to every subscriber. Returns frames sent. */
int64_t send_loop(int trigger, int64_t trigger_bytes, const int *subscribers, int64_t count, const char *frame,
                  int64_t frame_bytes) {
    char *buffer = malloc(1 << 16);
    int64_t pending = 0, sent = 0;
    for (;;) {
        ssize_t got = recv(trigger, buffer, 1 << 16, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        for (pending += got; pending >= trigger_bytes; pending -= trigger_bytes)
            for (int64_t i = 0; i < count; i++) sent += send_all(subscribers[i], frame, frame_bytes) == 0;
    }
    free(buffer);
    return sent;
}

#define CARRY_BYTES 4096

struct subscriber {
    int fd;
    int have;        /* bytes of an unfinished frame in carry */
    int64_t entries; /* entries with a volume, since the start */
    unsigned char carry[CARRY_BYTES];
};

struct totals {
    int64_t frames, entries, bytes, sum;
};

/* Parse what one read brought. Returns 0, or -1 when a frame does not fit the carry or the peer is gone. */
static int take(struct subscriber *s, unsigned char *buffer, int64_t cap, struct totals *totals) {
    memcpy(buffer, s->carry, s->have);
    ssize_t got = recv(s->fd, buffer + s->have, cap - s->have, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (got <= 0) return -1;
    int64_t have = s->have + got, start = 0, header = 0, size;
    totals->bytes += got;
    while ((size = frame_size(buffer + start, have - start, &header)) && have - start >= size) {
        if ((buffer[start] & 15) == 2) {
            uint16_t count;
            memcpy(&count, buffer + start + header + 4, 2);
            totals->frames++;
            for (int i = 0; i < count; i++) {
                double price, volume;
                memcpy(&price, buffer + start + header + 6 + 18 * i + 2, 8);
                memcpy(&volume, buffer + start + header + 6 + 18 * i + 10, 8);
                if (volume == 0.0) continue;
                s->entries++;
                totals->entries++;
                totals->sum += (int64_t)(price * 100.0 + 0.5) - 6000000LL;
            }
        }
        start += size;
    }
    if (have - start > CARRY_BYTES) return -1;
    s->have = (int)(have - start);
    memcpy(s->carry, buffer + start, s->have);
    return 0;
}

#define LOOK_NS 50000

/* `rounds` times: send `burst` trades on the trigger socket, look every LOOK_NS until every subscriber has their
   entries. What a send costs must not depend on what its receiver happens to be doing, so
   - nobody waits on the sockets: a send that wakes a receiver costs three times one that does not;
   - acknowledgements are delayed (TCP_QUICKACK off, anew for every round, as the kernel falls back): one for every read
     takes the sender's socket to the other core's cache, and the next send pays three times as much for that too.
   last_ns[r]: send to last subscriber. out[4]: frames, entries, bytes, sum of price steps. Returns rounds finished. */
int64_t broadcast_rounds(int trigger, const char *frames, const struct layout *at, int64_t base_ns, int64_t first,
                         int64_t burst, const int *fds, int64_t count, int64_t rounds, int64_t pause_us,
                         int64_t timeout_ms, int64_t *last_ns, int64_t *out) {
    const struct timespec look = {0, LOOK_NS};
    const int off = 0;
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    struct subscriber *all = calloc(count, sizeof *all);
    struct epoll_event *events = calloc(1024, sizeof *events);
    unsigned char *buffer = malloc(1 << 18);
    char *message = malloc(at->frame_bytes * burst);
    struct totals totals = {0, 0, 0, 0};
    int poller = epoll_create1(0);
    int64_t done = 0;
    for (int64_t i = 0; i < count; i++) {
        all[i].fd = fds[i];
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)i};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fds[i], &event)) goto end;
    }
    for (; done < rounds; done++) {
        for (int64_t i = 0; i < count; i++) setsockopt(fds[i], IPPROTO_TCP, TCP_QUICKACK, &off, sizeof off);
        int64_t want = (done + 1) * burst, missing = count, began = now_ns();
        for (int64_t k = 0; k < burst; k++) {
            int64_t number = first + done * burst + k;
            char *frame = message + k * at->frame_bytes;
            memcpy(frame, frames + (number % at->symbols) * at->frame_bytes, at->frame_bytes);
            fill_trade(frame, at, number, began - base_ns, clock_ns(CLOCK_REALTIME) / 1000);
        }
        began = now_ns();
        int64_t heard = began;
        if (send_all(trigger, message, burst * at->frame_bytes)) goto end;
        while (missing > 0) {
            int ready = epoll_wait(poller, events, 1024, 0);
            if (ready < 0 && errno == EINTR) continue;
            if (ready < 0) goto end;
            if (ready == 0) {
                if (now_ns() - heard > timeout_ms * 1000000LL) goto end;
                nanosleep(&look, NULL);
                continue;
            }
            heard = now_ns();
            for (int e = 0; e < ready; e++) {
                struct subscriber *s = all + events[e].data.u64;
                int64_t before = s->entries;
                if (take(s, buffer, 1 << 18, &totals)) goto end;
                missing -= before < want && s->entries >= want;
            }
        }
        last_ns[done] = now_ns() - began;
        if (pause_us) {
            struct timespec rest = {0, pause_us * 1000};
            nanosleep(&rest, NULL);
        }
    }
end:
    close(poller);
    out[0] = totals.frames;
    out[1] = totals.entries;
    out[2] = totals.bytes;
    out[3] = totals.sum;
    free(all);
    free(events);
    free(buffer);
    free(message);
    return done;
}
