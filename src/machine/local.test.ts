import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { LocalMachine } from './local.ts'

const dir = mkdtempSync(join(tmpdir(), 'local-'))
const machine = new LocalMachine()
after(() => rmSync(dir, { recursive: true }))

test('a program gets its input, environment and directory, and says how it ended', async () => {
  const child = await machine.spawn(['sh', '-c', 'echo "$(cat) $WORD $PWD"; exit 3'], { env: { WORD: 'w' }, cwd: '/' })
  child.stdin.end('in')
  assert.equal(String(await once(child.stdout, 'data')), 'in w /\n')
  assert.deepEqual(await child.exited, { code: 3, signal: null })
})

test('arguments are not parsed by a shell', async () => {
  const child = await machine.spawn(['echo', '$HOME; echo "x"'])
  assert.equal(String(await once(child.stdout, 'data')), '$HOME; echo "x"\n')
})

test('a program that cannot be started says why', async () => {
  const file = join(dir, 'plain')
  writeFileSync(file, 'x')
  await assert.rejects(machine.spawn(['no-such-program']), { code: 'NOT_FOUND', exitStatus: 127 })
  await assert.rejects(machine.spawn([]), { code: 'NOT_FOUND' })
  await assert.rejects(machine.spawn([file]), { code: 'NOT_EXECUTABLE', exitStatus: 126 })
  await assert.rejects(machine.spawn(['true'], { cwd: join(dir, 'absent') }), { code: 'NO_SUCH_DIRECTORY' })
  await assert.rejects(machine.spawn(['true'], { tty: { rows: 1, cols: 1 } }), { code: 'UNSUPPORTED' })
})

test('a directory on PATH that may not be entered does not hide that a program is absent', async () => {
  // A plain file stands in for such a directory: root may enter any.
  const env = { PATH: `${join(dir, 'plain')}:/usr/bin` }
  await assert.rejects(machine.spawn(['no-such-program'], { env }), { code: 'NOT_FOUND' })
})

test('a program can be ended by a signal, and is killed by an abort', async () => {
  const ended = await machine.spawn(['sleep', '60'])
  ended.kill()
  assert.deepEqual(await ended.exited, { code: null, signal: 'SIGTERM' })
  const control = new AbortController()
  const killed = await machine.spawn(['sleep', '60'], { signal: control.signal })
  control.abort()
  assert.deepEqual(await killed.exited, { code: null, signal: 'SIGKILL' })
  await assert.rejects(machine.spawn(['true'], { signal: control.signal }), { name: 'AbortError' })
})

test('writing to a program that does not read is no crash', async () => {
  const child = await machine.spawn(['true'])
  child.stdin.end(Buffer.alloc(1 << 20))
  assert.equal((await child.exited).code, 0)
})

test('a detached program leads its own session and writes to its log', async () => {
  const log = join(dir, 'deep/log')
  const child = await machine.spawn(['sh', '-c', 'cut -d" " -f1,6 /proc/$$/stat; echo err >&2'], {
    detach: { log, stays: true },
  })
  child.stdin.end('ignored')
  // Nothing detached keeps this process from ending, so something else must.
  await Promise.race([child.exited, sleep(5000)])
  assert.equal(readFileSync(log, 'utf8'), `${child.pid} ${child.pid}\nerr\n`)
  assert.deepEqual(await child.stdout.toArray(), [])
})

test('sockets are reached, and an address where nobody listens is an error', async () => {
  const unix = join(dir, 'socket')
  const server = createServer((socket) => socket.end('hello')).listen(unix)
  await once(server, 'listening')
  const socket = await machine.connect({ unix })
  assert.equal(String(await once(socket, 'data')), 'hello')
  server.close()
  await once(socket, 'close')
  await assert.rejects(machine.connect({ unix }), { code: 'CONNECT_FAILED' })
  await assert.rejects(machine.connect({ host: '127.0.0.1', port: 1 }), { code: 'CONNECT_FAILED' })
  await assert.rejects(machine.connect({ unix }, AbortSignal.abort()), { name: 'AbortError' })
})

test('a connection that breaks is closed and does not end this process', async () => {
  const server = createServer((socket) => socket.once('data', () => socket.resetAndDestroy()))
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const address = server.address()
  assert.ok(address && typeof address === 'object')
  const stream = await new LocalMachine().connect({ host: '127.0.0.1', port: address.port })
  const closed = new Promise((resolve) => stream.resume().once('close', resolve))
  stream.write('text')
  await closed
  server.close()
})
