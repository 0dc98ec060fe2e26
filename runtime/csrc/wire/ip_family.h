/* The two families of addresses. */
#ifndef SANDSTORM_IP_FAMILY_H
#define SANDSTORM_IP_FAMILY_H

#define IP_FAMILY_V4 1
#define IP_FAMILY_V6 2

#endif
