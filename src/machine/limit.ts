/**
 * Aborts with a `TimeoutError` after so many milliseconds. Unlike AbortSignal.timeout() it does so even when only a
 * signal of AbortSignal.any() is held on to: Node 20 drops the timer with the signal that nobody else has.
 */
export function timeLimit(ms: number): AbortSignal {
  const limit = new AbortController()
  setTimeout(() => limit.abort(new DOMException('it took too long', 'TimeoutError')), ms).unref()
  return limit.signal
}
