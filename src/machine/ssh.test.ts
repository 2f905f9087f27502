import assert from 'node:assert/strict'
import { connect, createServer, type Server } from 'node:net'
import { after, before, test } from 'node:test'
import ssh2, { type Session } from 'ssh2'
import type { SshTarget } from './handshake.ts'
import { generateKeyPair } from './keys.ts'
import { SshMachine } from './ssh.ts'

const hostKey = generateKeyPair('host')
const login = generateKeyPair('login')

/** What a client asks for is put here, and answered by the test or not at all. */
let onSession: (accept: () => Session) => void = () => {}
let port = 0
let server: Server

before(async () => {
  const ssh = new ssh2.Server({ hostKeys: [hostKey.openssh] }, (client) => {
    client.on('authentication', (context) => {
      const ours = context.method === 'publickey' && context.key.data.equals(login.publicBlob)
      if (ours) context.accept()
      else context.reject()
    })
    client.on('session', (accept) => onSession(accept))
    client.on('error', () => {})
  })
  server = createServer((socket) => ssh.injectSocket(socket))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address && typeof address === 'object') port = address.port
})
after(() => server.close())

function target(fields: Partial<SshTarget> = {}): SshTarget {
  return {
    ...{ name: 'there', user: 'me', logins: [{ key: login.openssh }] },
    transport: async () => connect(port, '127.0.0.1'),
    distrust: () => undefined,
    ...fields,
  }
}

const connected = (fields?: Partial<SshTarget>) => SshMachine.connect(target(fields), AbortSignal.timeout(10_000))

test('a program that is called off while its channel is being opened is not waited for', async () => {
  await using machine = await connected()
  // The server never answers.
  onSession = () => {}
  const stop = new AbortController()
  const started = machine.spawn(['true'], { signal: stop.signal })
  setTimeout(() => stop.abort(new Error('enough')), 50)
  await assert.rejects(started, /enough/)
})

test('a channel that opens after it was called off is closed again', async () => {
  await using machine = await connected()
  const stop = new AbortController()
  const closed = new Promise<void>((resolve) => {
    onSession = (accept) => {
      stop.abort(new Error('enough'))
      setTimeout(() => accept().on('exec', (ok) => ok().resume().once('close', resolve)), 50)
    }
  })
  await assert.rejects(machine.spawn(['true'], { signal: stop.signal }), /enough/)
  await closed
})

test('a program that ends as soon as it has begun has an exit all the same, and a signal its name', async () => {
  await using machine = await connected()
  for (const [said, expected] of [
    ['TERM', 'SIGTERM'],
    ['SEGV', 'SIGSEGV'],
  ] as const) {
    onSession = (accept) =>
      accept().on('exec', (ok) => {
        const channel = ok()
        channel.exit(said, false, '')
        channel.end()
      })
    const program = await machine.spawn(['true'])
    program.stdout.resume()
    assert.deepEqual(await program.exited, { code: null, signal: expected })
  }
})

test('a login that is refused is an error with what to do about it', async () => {
  const other = generateKeyPair('other')
  await assert.rejects(connected({ logins: [{ key: other.openssh }], loginHint: 'ssh-add' }), {
    code: 'LOGIN_FAILED',
    hint: 'ssh-add',
  })
})

test('a machine that has died without a word is left all the same', async () => {
  const proxy = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (near) => {
    const far = connect(port, '127.0.0.1')
    near.pipe(far, { end: false })
    far.pipe(near, { end: false })
  })
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
  const address = proxy.address()
  const machine = await connected({
    transport: async () => connect(address && typeof address === 'object' ? address.port : 0, '127.0.0.1'),
  })
  const limit = setTimeout(() => assert.fail('it is waited for'), 10_000)
  await machine[Symbol.asyncDispose]()
  clearTimeout(limit)
  proxy.close()
})
