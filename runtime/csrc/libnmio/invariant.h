/* What holds at a place whatever peers, images and operators do: if it does not, the mistake is ours. Checked in builds for
 * debugging, with sanitizers, of the fuzz targets and of the simulation; with NDEBUG the condition is compiled and never
 * evaluated. What others can make untrue is no invariant: it is counted and dropped. */
#ifndef SANDSTORM_INVARIANT_H
#define SANDSTORM_INVARIANT_H

#ifdef NDEBUG
#define INVARIANT(condition) ((void)(0 && (condition)))
#else
#include <assert.h>
#define INVARIANT(condition) assert(condition)
#endif

#endif
