/**
 * Aborts after so many milliseconds, with a `TimeoutError` unless a reason is given. Unlike AbortSignal.timeout() it does
 * so even when only a signal of AbortSignal.any() is held on to: Node 20 drops the timer with the signal that nobody else
 * has.
 */
export function timeLimit(
  ms: number,
  reason: Error = new DOMException('it took too long', 'TimeoutError'),
): AbortSignal {
  const limit = new AbortController()
  setTimeout(() => limit.abort(reason), ms).unref()
  return limit.signal
}

/** Aborts with a reason once `restart` has not been called for so many milliseconds, until it is disposed of. */
export function stallLimit(ms: number, reason: Error): Disposable & { signal: AbortSignal; restart: () => void } {
  const limit = new AbortController()
  const timer = setTimeout(() => limit.abort(reason), ms)
  return { signal: limit.signal, restart: () => timer.refresh(), [Symbol.dispose]: () => clearTimeout(timer) }
}

/** What a promise gives, unless the signal is aborted before that: then it throws the signal's reason. */
export async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  let ignore = () => {}
  const aborted = new Promise<never>((_, reject) => {
    const abort = () => reject(signal?.reason)
    signal?.addEventListener('abort', abort, { once: true })
    ignore = () => signal?.removeEventListener('abort', abort)
    if (signal?.aborted) abort()
  })
  try {
    return await Promise.race([promise, aborted])
  } finally {
    ignore()
  }
}
