import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { timeLimit } from './limit.ts'

test('a limit is kept where nobody holds its signal, also within others', async () => {
  setFlagsFromString('--expose-gc')
  const collect: () => void = runInNewContext('gc')
  const reached = (signal: AbortSignal) => new Promise<unknown>((resolve) => listen(signal, resolve))
  const waits = [reached(timeLimit(100)), reached(AbortSignal.any([new AbortController().signal, timeLimit(100)]))]
  const collecting = setInterval(collect, 10)
  const reasons = await Promise.all(waits)
  clearInterval(collecting)
  assert.deepEqual(
    reasons.map((reason) => reason instanceof DOMException && reason.name),
    ['TimeoutError', 'TimeoutError'],
  )
})

function listen(signal: AbortSignal, tell: (reason: unknown) => void): void {
  signal.addEventListener('abort', () => tell(signal.reason), { once: true })
}
