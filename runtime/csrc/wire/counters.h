/* Everything is counted, with one reason for each drop. A layer lists the names of its counters once, as LIST(X); a struct with a
 * field for each of them stands in the layer's own struct, and their names are an array in the same order. */
#ifndef SANDSTORM_COUNTERS_H
#define SANDSTORM_COUNTERS_H

#include <stdint.h>

#define COUNTER_FIELD(name) uint64_t name;
#define COUNTER_NAME(name) #name,
#define COUNTERS_DEFINE(list) {list(COUNTER_FIELD)}

#define COUNT(layer, name) ((layer)->counters.name++)
#define COUNT_BY(layer, name, by) ((layer)->counters.name += (by))

#endif
