import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import ssh2 from 'ssh2'
import * as z from 'zod'
import { engineFiles } from '../engine/qemu/argv.ts'
import { generateKeyPair } from '../machine/keys.ts'
import { SshMachine } from '../machine/ssh.ts'
import { NestvmError } from '../store/error.ts'
import { Context } from './context.ts'
import { diskFor } from './disk.ts'
import { exampleRecord } from './example-record.ts'
import { loadRecord, saveRecord } from './record.ts'

const requestSchema = z.object({ execute: z.string(), id: z.int(), arguments: z.record(z.string(), z.unknown()) })

/** Knows its disks, as QEMU does, and lets go of them a little later than it says. */
function fakeQemu(socket: string, nodes: Map<unknown, unknown>): Server {
  let held = 0
  const remove = (node: unknown) => (nodes.delete(node) ? undefined : `Failed to find node with node-name='${node}'`)
  const answers: Record<string, (given: Record<string, unknown>) => string | undefined> = {
    'blockdev-add': ({ 'node-name': node, file }) => {
      if (nodes.has(node)) return 'Duplicate nodes'
      nodes.set(node, file)
      return undefined
    },
    device_del: () => {
      held = 3
      return undefined
    },
    'blockdev-del': ({ 'node-name': node }) => (held-- > 0 ? 'Node is in use' : remove(node)),
  }
  return createServer((stream) => {
    stream.on('error', () => {})
    stream.write('{"QMP": {}}\n')
    createInterface({ input: stream }).on('line', (line) => {
      const { execute, id, arguments: given } = requestSchema.parse(JSON.parse(line))
      const desc = answers[execute]?.(given)
      const answer = desc === undefined ? { return: {} } : { error: { class: 'GenericError', desc } }
      stream.write(`${JSON.stringify({ id, ...answer })}\n`)
    })
  }).listen(socket)
}

/** To every command. */
async function guestThatSays(text: string): Promise<SshMachine> {
  const [hostKey, login] = [generateKeyPair('host'), generateKeyPair('login')]
  const server = new ssh2.Server({ hostKeys: [hostKey.openssh] }, (client) => {
    client.on('authentication', (context) => context.accept()).on('error', () => {})
    client.on('session', (accept) => {
      accept().on('exec', (ok) => {
        const channel = ok()
        channel.write(text)
        channel.exit(0)
        channel.end()
      })
    })
  })
  const listener = createServer((socket) => server.injectSocket(socket)).listen(`${process.env.XDG_STATE_HOME}/ssh`)
  const target = { name: 'outer', user: 'root', logins: [{ key: login.openssh }], distrust: () => undefined }
  return SshMachine.connect(
    { ...target, transport: async () => connect(`${process.env.XDG_STATE_HOME}/ssh`) },
    AbortSignal.timeout(10_000),
  ).finally(() => listener.close())
}

test('an attempt to attach a disk that is broken off leaves none, and is no hindrance where it could not', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'disk-'))
  const before = process.env.XDG_STATE_HOME
  process.env.XDG_STATE_HOME = dir
  const guest = exampleRecord('outer', { engineDir: dir, socketDir: dir, nested: true })
  await saveRecord(guest)
  const nodes = new Map<unknown, unknown>()
  const qemu = fakeQemu(engineFiles(dir, dir).qmpSocket, nodes)
  const context = new Context(new AbortController().signal)
  const disk = (path: string) => ({ content: path, path, readOnly: true })

  context.guest = () => Promise.reject(new NestvmError('INTERRUPTED', 'stopped by SIGINT'))
  await assert.rejects(diskFor(context, disk('/first'), guest), { code: 'INTERRUPTED' })
  assert.equal(nodes.size, 0)
  // After kill -9.
  nodes.set('hot1', {})
  const machine = await guestThatSays('/dev/sdb\n')
  context.guest = async () => machine
  assert.equal((await diskFor(context, disk('/second'), guest)).path, '/dev/sdb')

  const file = { driver: 'file', filename: '/second', locking: 'off', cache: { direct: false, 'no-flush': false } }
  assert.deepEqual([...nodes.values()], [file])
  assert.deepEqual((await loadRecord('outer'))?.disks, [{ content: '/second', device: '/dev/sdb' }])
  await machine[Symbol.asyncDispose]()
  qemu.close()
  rmSync(dir, { recursive: true })
  if (before === undefined) delete process.env.XDG_STATE_HOME
  else process.env.XDG_STATE_HOME = before
})
