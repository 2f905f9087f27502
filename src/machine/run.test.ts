import assert from 'node:assert/strict'
import { test } from 'node:test'
import { NestvmError } from '../store/error.ts'
import { LocalMachine } from './local.ts'
import { run } from './run.ts'

const machine = new LocalMachine()

test('output and exit are returned', async () => {
  const result = await run(machine, ['sh', '-c', 'cat; echo "$A" >&2'], { input: 'grüße', env: { A: 'a' }, cwd: '/' })
  assert.deepEqual(result, { stdout: 'grüße', stderr: 'a\n', exit: { code: 0, signal: null } })
})

test('a failed command carries its exit status and output', async () => {
  const argv = ['sh', '-c', 'echo out; echo reason >&2; exit 4']
  const error = await run(machine, argv).catch((error: unknown) => error)
  assert.ok(error instanceof NestvmError)
  assert.equal(error.code, 'COMMAND_FAILED')
  assert.equal(error.message, 'sh failed with exit status 4: reason')
  const exit = { code: 4, signal: null }
  assert.deepEqual(error.details, { machine: 'host', argv, exit, stdout: 'out\n', stderr: 'reason\n' })
  assert.deepEqual((await run(machine, argv, { allowFailure: true })).exit, exit)
})

test('a command that is too slow is killed, even where its children keep its output open', async () => {
  const start = performance.now()
  const slow = run(machine, ['sh', '-c', 'echo begun; sleep 5 & wait'], { timeoutMs: 100 })
  await assert.rejects(slow, (error) => {
    assert.ok(error instanceof NestvmError)
    assert.equal(error.details.stdout, 'begun\n')
    return error.code === 'TIMEOUT' && error.exitStatus === 124
  })
  assert.ok(performance.now() - start < 3000)
})

test('an abort ends the command with its reason', async () => {
  const control = new AbortController()
  const running = run(machine, ['sleep', '60'], { signal: control.signal })
  setTimeout(() => control.abort(new Error('enough')), 50)
  await assert.rejects(running, /enough/)
  await assert.rejects(run(machine, ['true'], { signal: control.signal }), /enough/)
})

test('a command that writes without end is stopped', async () => {
  await assert.rejects(run(machine, ['yes'], { maxOutput: 100_000 }), { code: 'TOO_MUCH_OUTPUT' })
})

test('a program that is absent is told from one that fails', async () => {
  await assert.rejects(run(machine, ['no-such-program'], { timeoutMs: 1000 }), { code: 'NOT_FOUND' })
})
