/* What 'xapi --version' and the Server: header say of this program. */
#ifndef XAPI_CORE_VERSION_TEXT_H
#define XAPI_CORE_VERSION_TEXT_H

#define XAPI_VERSION "0.1"

#endif
