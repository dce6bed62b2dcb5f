/* TLS as this engine wants it: whom to trust, who we are, whom to expect. */
#ifndef MFSTORE_HTTP_TLS_H
#define MFSTORE_HTTP_TLS_H
#include <stddef.h>

struct ssl_ctx_st;
struct ssl_st;

/* Files are in PEM and NULL where there is none; the key may lie in the certificate's file. NULL: ``words`` say why. */
struct ssl_ctx_st *mf_tls_context(int verify, const char *ca_file, const char *certificate, const char *private_key,
                                  char *words, size_t words_n);
void mf_tls_context_free(struct ssl_ctx_st *context);

/* A client for ``host``, a name or an address without brackets. NULL: no memory. */
struct ssl_st *mf_tls_client(struct ssl_ctx_st *context, const char *host);

#endif
