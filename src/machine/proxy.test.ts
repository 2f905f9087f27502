import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { LocalMachine } from './local.ts'
import { throughProxy } from './proxy.ts'

const local = new LocalMachine()

test('a connection through a program outlives the limit for making it, and the program ends with it', async () => {
  const limit = new AbortController()
  const stream = await throughProxy(local, ['sh', '-c', 'echo $$; exec cat'], limit.signal)
  const [pid] = await once(stream, 'data')
  limit.abort()
  await sleep(100)
  stream.write('still there')
  const [answer] = await once(stream, 'data')
  assert.equal(String(answer), 'still there')
  stream.destroy()
  for (let tries = 0; runs(Number(pid)); tries++) {
    assert.ok(tries < 500, 'the program stays')
    await sleep(10)
  }
})

test('a program that fails says why', async () => {
  const stream = await throughProxy(local, ['sh', '-c', 'echo no way >&2; exit 3'], new AbortController().signal)
  stream.resume()
  const [error] = await once(stream, 'error').catch((reason: unknown) => [reason])
  assert.match(String(error), /sh: no way/)
})

function runs(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
