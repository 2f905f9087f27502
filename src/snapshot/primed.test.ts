import assert from 'node:assert/strict'
import { Duplex, PassThrough } from 'node:stream'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { PrimedShell } from './primed.ts'

/** A guest's shell whose one command ends at once. */
function shell(): PrimedShell {
  const orders = new Duplex({
    read: () => {},
    write: (chunk, _, done) => {
      if (String(chunk).includes('echo started')) orders.push('started 7\nended 3\nrenewed\n')
      done()
    },
  })
  return PrimedShell.wake('outer', orders, 'token', 5000)
}

const kill = async () => {}

/** A command that has no standard error, and whose output is read. */
async function started() {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()]
  const { process } = await shell().run(['true'], {}, { stdout, stderr }, kill)
  let text = ''
  stdout.on('data', (chunk: Buffer) => {
    text += chunk
  })
  stderr.resume().end()
  return { process, stdout, read: () => text }
}

test('output that is still on its way when the command has ended arrives whole', async () => {
  const { process, stdout, read } = await started()
  const writing = (async () => {
    for (const part of 'abcd') {
      await sleep(400)
      stdout.write(part)
    }
    stdout.end()
  })()
  assert.deepEqual(await process.exited, { code: 3, signal: null })
  assert.equal(read(), 'abcd')
  await writing
})

test('and when it is read slowly', async () => {
  const { process, stdout, read } = await started()
  stdout.pause()
  stdout.end('text')
  setTimeout(() => stdout.resume(), 1500)
  await process.exited
  assert.equal(read(), 'text')
})

test('a program that was left running with the output open is not waited for', async () => {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()]
  const { process } = await shell().run(['true'], {}, { stdout, stderr }, kill)
  stdout.resume()
  stderr.resume()
  const limit = setTimeout(() => assert.fail('it is waited for'), 5000)
  await process.exited
  clearTimeout(limit)
})

test('a command that was called off while it was started is ended', async () => {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()]
  const sent: string[] = []
  const signal = AbortSignal.abort()
  await shell().run(['true'], { signal }, { stdout, stderr }, async (name, pid) => void sent.push(`${name} ${pid}`))
  assert.deepEqual(sent, ['SIGKILL 7'])
})
