#include "http/pace.h"

static uint64_t duration(const struct mf_pace *pace, size_t n) {
    return (uint64_t) ((double) n * pace->byte_ns);
}

void mf_pace_begin(struct mf_pace *pace, double rate) {
    double held;
    pace->paid_ns = 0;
    pace->byte_ns = rate > 0 ? 1e9 / rate : 0;
    held = rate * MF_PACE_BURST_NS / 1e9;
    if (held < (double) MF_PACE_LEAST)
        held = (double) MF_PACE_LEAST;
    pace->burst_ns = (uint64_t) (held * pace->byte_ns);
    pace->piece = held / 2 < (double) MF_PACE_PIECE ? (size_t) (held / 2) : MF_PACE_PIECE;
}

size_t mf_pace_take(struct mf_pace *pace, size_t n, uint64_t now) {
    uint64_t paid, next;
    size_t some;
    if (!n || pace->byte_ns <= 0)
        return n;
    paid = __atomic_load_n(&pace->paid_ns, __ATOMIC_RELAXED);
    do {
        uint64_t from = paid < now ? now : paid;
        double room = ((double) (now + pace->burst_ns) - (double) from) / pace->byte_ns;
        some = n < pace->piece ? n : pace->piece;
        if (room < (double) some)
            return 0;
        some = room < (double) n ? (size_t) room : n;
        next = from + duration(pace, some);
    } while (!__atomic_compare_exchange_n(&pace->paid_ns, &paid, next, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return some;
}

void mf_pace_return(struct mf_pace *pace, size_t n) {
    if (n && pace->byte_ns > 0)
        __atomic_fetch_sub(&pace->paid_ns, duration(pace, n), __ATOMIC_RELAXED);
}

uint64_t mf_pace_when(const struct mf_pace *pace) {
    uint64_t paid = __atomic_load_n(&pace->paid_ns, __ATOMIC_RELAXED) + duration(pace, pace->piece);
    return paid > pace->burst_ns ? paid - pace->burst_ns + 1 : 0;
}
