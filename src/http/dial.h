/* Makes connections. libcurl looks names up, tries their addresses and speaks SOCKS; HTTP proxies and TLS are done
 * here. What comes out is an mf_link.
 *
 * One dialer for each worker, on its poller; used by its thread alone.
 */
#ifndef MFSTORE_HTTP_DIAL_H
#define MFSTORE_HTTP_DIAL_H
#include <stdint.h>

#include "http/engine.h"
#include "http/link.h"
#include "http/poller.h"

struct mf_dialer;
struct mf_dial;

/* What became of a dial, which is gone when this is called. link is NULL on failure (a code of enum mf_failure, errno
 * or 0, words that live until it returns). Called from within mf_dialer_act, never from mf_dial_start. */
typedef void mf_dialed(void *owner, struct mf_dial *dial, struct mf_link *link, int failure, int error,
                       const char *message);

struct mf_dialer *mf_dialer_new(const struct mf_config *config, struct mf_poller *poller, mf_dialed *dialed);
void mf_dialer_free(struct mf_dialer *dialer); /* its links are closed before, its dials dropped */
/* In a forked child, where nothing of it is used any more: closes the descriptors of its links and dials, and nothing
 * else, for libcurl and OpenSSL may be in the midst of anything. */
void mf_dialer_abandon(struct mf_dialer *dialer);

/* Begins a connection to an origin ("https://host:port"; through config's proxy if there is one). With an HTTP proxy
 * and an http origin it ends at the proxy: requests name the origin and carry mf_dialer_proxy_authorization.
 * ``fresh``: looks the name up anew. NULL: no memory. */
struct mf_dial *mf_dial_start(struct mf_dialer *dialer, const char *origin, int fresh, void *owner);
/* Nobody waits for it any more: dialed() is not called. */
void mf_dial_drop(struct mf_dial *dial);

/* The value of the header Proxy-Authorization; NULL: the proxy's URL names no user. Lives as long as the dialer. */
const char *mf_dialer_proxy_authorization(const struct mf_dialer *dialer);

/* When mf_dialer_act has to be called although no socket was ready: by the clock of mf_now_ns; UINT64_MAX: not. */
uint64_t mf_dialer_when(const struct mf_dialer *dialer);
/* Once a round, after the poller. Calls dialed(). */
void mf_dialer_act(struct mf_dialer *dialer, uint64_t now);

#endif
