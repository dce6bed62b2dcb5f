/* TLS as this engine wants it: whom to trust, who we are, whom to expect. */
#ifndef MFSTORE_HTTP_TLS_H
#define MFSTORE_HTTP_TLS_H
#include <stddef.h>

struct ssl_ctx_st;
struct ssl_st;

/* What was read from files, in PEM; NULL where there is none. The key may lie in the certificate's file. */
struct mf_trust {
    int verify;
    const char *ca_file, *certificate, *private_key;
};

/* From any thread. One is made for all who trust the same files as long as these do not change, for reading a bundle of
 * 140 authorities takes 20 to 30 ms. NULL: ``words`` say why. */
struct ssl_ctx_st *mf_tls_context(const struct mf_trust *trust, char *words, size_t words_n);
void mf_tls_context_free(struct ssl_ctx_st *context);

/* A client for ``host``, a name or an address without brackets. It takes up the newest session that a client of this
 * context had with that host and port: a handshake takes 0.5 ms of CPU then, not 1.0 (OpenSSL 3.0). NULL: no memory. */
struct ssl_st *mf_tls_client(struct ssl_ctx_st *context, const char *host, const char *port);

#endif
