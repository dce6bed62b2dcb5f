/* An established connection: a socket, with TLS on it or not. Its bytes are ours.
 *
 * Never blocks. Used by one thread. Nothing here knows HTTP.
 */
#ifndef MFSTORE_HTTP_LINK_H
#define MFSTORE_HTTP_LINK_H
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct mf_link;
struct ssl_st;

/* Below 0 of what follows. */
enum {
    MF_LINK_READ = -1,  /* nothing can be done before the socket is readable */
    MF_LINK_WRITE = -2, /* ... writable */
    MF_LINK_BROKEN = -3, /* mf_link_error says why */
    MF_LINK_UNABLE = -4  /* of mf_link_send_file: not in this way */
};

/* What the links of one thread share, so that no idle one holds memory for what it may send. */
struct mf_link_memory {
    unsigned char *spare; /* NULL: lent */
    struct mf_link *links; /* all of them */
};
void mf_link_memory_free(struct mf_link_memory *memory); /* its links are closed */

/* In a forked child: closes the descriptors of the links, which are not to be used any more. */
void mf_links_abandon(struct mf_link_memory *memory);

/* On a connected socket that does not block, which is its own from now on, or closed: NULL, no memory. */
struct mf_link *mf_link_new(int fd, struct mf_link_memory *memory);

/* Begins TLS on the link, also on one that speaks TLS already (to a proxy): its bytes are those of ``tls`` from now on,
 * a client that was told whom to expect and belongs to the link. 0; or -1, no memory: tls is freed. */
int mf_link_secure_with(struct mf_link *link, struct ssl_st *tls);

/* Goes on with the handshake: 0 when it is done, or a code from above. */
int mf_link_handshake(struct mf_link *link);

int mf_link_fd(const struct mf_link *link);
int mf_link_secure(const struct mf_link *link);

/* Up to n bytes (n > 0) into at: how many; 0: the peer has ended its side in order (TCP end, with TLS after a
 * close_notify; a TLS stream that ends without one is MF_LINK_BROKEN, for it may have been cut). */
ptrdiff_t mf_link_receive(struct mf_link *link, void *at, size_t n);

/* Whether bytes are here that the socket will not tell of: read ahead or decrypted. To be asked before waiting. */
int mf_link_pending(const struct mf_link *link);

/* Takes bytes of the pieces, in order: how many, which may be all that were given although the network took fewer
 * (TLS joins records: then mf_link_flush has to follow). The pieces may be changed or freed for what was taken. */
ptrdiff_t mf_link_send(struct mf_link *link, const struct iovec *pieces, size_t count);

/* The same with bytes of a file, which the kernel hands on without copying them: up to n of those from offset on. 0:
 * the file has none there. MF_LINK_UNABLE: with TLS, where the system has no such call or the file does not allow it,
 * and on any error of either: reading and sending them tells whose it is. */
ptrdiff_t mf_link_send_file(struct mf_link *link, int file, int64_t offset, size_t n);

/* Sends what the link holds back: 0 when there is none left, else a code from above. */
int mf_link_flush(struct mf_link *link);

/* How many bytes it holds back: to be told what the network has not yet taken of what mf_link_send has. */
size_t mf_link_held(const struct mf_link *link);

/* Whether an idle connection is still good for a request: nothing but TLS's own messages came, and no end. */
int mf_link_idle(struct mf_link *link);

/* Of MF_LINK_BROKEN: errno or 0, and words. The words live as long as the link. */
int mf_link_error(const struct mf_link *link, const char **message);

/* Closes the socket, at once and without waiting for anything. */
void mf_link_close(struct mf_link *link);

#endif
