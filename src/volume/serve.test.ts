import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Ask, anonymous, ask, ExampleClient, result, step } from './example-client.ts'
import { attribute, operation } from './protocol.ts'
import { serveVolumes } from './serve.ts'
import type { Reader } from './xdr.ts'

/** A directory with `share` in it, which is served as `rw` and, read-only, as `ro`; and a client. */
async function served() {
  const dir = mkdtempSync(join(tmpdir(), 'nestvm-volume-'))
  const share = join(dir, 'share')
  mkdirSync(share)
  writeFileSync(join(dir, 'secret'), 'secret')
  const exports = [
    { name: 'rw', dir: share, readOnly: false },
    { name: 'ro', dir: share, readOnly: true },
  ]
  const server = await serveVolumes({ exports, listen: [{ host: '127.0.0.1', port: 0 }] })
  const [port = 0] = server.ports
  const client = await ExampleClient.connect(port)
  return {
    ...{ dir, share, port, client },
    async [Symbol.asyncDispose]() {
      await client[Symbol.asyncDispose]()
      await server[Symbol.asyncDispose]()
      rmSync(dir, { recursive: true })
    },
  }
}

/** Asks, and reads away the results of the first operations, which must go well. */
async function after(client: ExampleClient, steps: Ask[], last: Ask, caller?: { uid: number; gid: number }) {
  const reply = await client.ask([...steps, last], caller)
  for (const { operation } of steps) result(reply, operation)
  return reply
}

const rw = [ask.root, ask.lookup('rw')]

async function handleOf(client: ExampleClient, ...path: string[]): Promise<Buffer> {
  const reply = await after(client, [ask.root, ...path.map((name) => ask.lookup(name))], ask.getHandle)
  result(reply, operation.GETFH)
  return Buffer.from(reply.opaque(128))
}

async function openFile(client: ExampleClient, name: string, how = {}, clientId = client.clientId): Promise<Buffer> {
  const reply = await after(client, rw, ask.open(clientId, name, { create: true, ...how }))
  result(reply, operation.OPEN)
  return Buffer.from(reply.fixed(16))
}

async function readAll(client: ExampleClient, handle: Buffer, stateId = anonymous): Promise<string> {
  const reply = await after(client, [ask.handle(handle)], ask.read(stateId))
  result(reply, operation.READ)
  reply.bool()
  return reply.opaque(1 << 20).toString()
}

async function change(client: ExampleClient, handle: Buffer): Promise<bigint> {
  const reply = await after(client, [ask.handle(handle)], ask.attributes([attribute.change]))
  result(reply, operation.GETATTR)
  reply.bitmap()
  reply.u32()
  return reply.u64()
}

test('a file is written, read, renamed and removed', async () => {
  await using own = await served()
  const { client, share } = own
  const stateId = await openFile(client, 'new')
  const handle = await handleOf(client, 'rw', 'new')
  result(await after(client, [ask.handle(handle)], ask.write(stateId, 'text')), operation.WRITE)
  assert.equal(readFileSync(join(share, 'new'), 'utf8'), 'text')
  result(await after(client, [...rw, ask.save], ask.rename('new', 'old')), operation.RENAME)
  assert.deepEqual(readdirSync(share), ['old'])
  assert.equal(await readAll(client, handle), 'text')
  result(await after(client, rw, ask.remove('old')), operation.REMOVE)
  assert.deepEqual(readdirSync(share), [])
  assert.equal(await readAll(client, handle, stateId), 'text', 'what is open can be read when it is removed')
  result(await after(client, [ask.handle(handle)], ask.close(stateId)), operation.CLOSE)
  await assert.rejects(readAll(client, handle), /STALE/)
})

test('no name leads out of the directory', async () => {
  await using own = await served()
  const { client } = own
  for (const name of ['..', '.', '../secret', '/etc/passwd', 'a/b', 'a\0b', '']) {
    const reply = await after(client, rw, ask.lookup(name))
    assert.throws(() => result(reply, operation.LOOKUP), /BADNAME|BADCHAR|INVAL/, JSON.stringify(name))
  }
  const parent = await after(client, [...rw, step(operation.LOOKUPP, () => {})], ask.lookup('secret'))
  assert.throws(() => result(parent, operation.LOOKUP), /NOENT/)
})

test('no link is followed, also one that takes the place of a directory', async () => {
  await using own = await served()
  const { client, share, dir } = own
  symlinkSync('..', join(share, 'up'))
  symlinkSync('../secret', join(share, 'file'))
  const reply = await after(client, [...rw, ask.lookup('up')], ask.lookup('secret'))
  assert.throws(() => result(reply, operation.LOOKUP), /SYMLINK/)
  const opened = await after(client, rw, ask.open(client.clientId, 'file'))
  assert.throws(() => result(opened, operation.OPEN), /SYMLINK/)
  await assert.rejects(readAll(client, await handleOf(client, 'rw', 'file')), /INVAL/)

  mkdirSync(join(share, 'sub'))
  writeFileSync(join(share, 'sub', 'secret'), 'harmless')
  const sub = await handleOf(client, 'rw', 'sub')
  const file = await handleOf(client, 'rw', 'sub', 'secret')
  renameSync(join(share, 'sub'), join(dir, 'moved'))
  symlinkSync('..', join(share, 'sub'))
  const inside = await after(client, [ask.handle(sub)], ask.lookup('secret'))
  assert.doesNotMatch(await answerOf(client, inside), /^secret/)
  await readAll(client, file).then(
    (text) => assert.equal(text, 'harmless'),
    (error) => assert.match(String(error), /STALE|NOENT/),
  )
})

/** The content that a handle behind a LOOKUP's answer has, if it went well. */
async function answerOf(client: ExampleClient, reply: Reader): Promise<string> {
  try {
    result(reply, operation.LOOKUP)
    return await readAll(client, await handleOf(client, 'rw', 'sub', 'secret'))
  } catch (error) {
    return String(error)
  }
}

test('a directory and a link that take turns never lead out', async () => {
  await using own = await served()
  const { client, share } = own
  mkdirSync(join(share, 'real'))
  writeFileSync(join(share, 'real', 'secret'), 'harmless')
  symlinkSync('..', join(share, 'link'))
  for (let turn = 0; turn < 300; turn++) {
    const reading = after(client, [...rw, ask.lookup('real'), ask.lookup('secret')], ask.read(anonymous))
    // While the call is on its way.
    for (const [from, to] of [
      ['real', 'x'],
      ['link', 'real'],
      ['real', 'link'],
      ['x', 'real'],
    ] as const) {
      if (turn % 3 !== 0) await Promise.resolve()
      renameSync(join(share, from), join(share, to))
    }
    const reply = await reading.catch(() => undefined)
    if (!reply) continue
    result(reply, operation.READ)
    reply.bool()
    assert.equal(reply.opaque(100).toString(), 'harmless')
  }
})

test('a read-only export refuses every change, though the same directory is exported to be written too', async () => {
  await using own = await served()
  const { client, share } = own
  writeFileSync(join(share, 'file'), 'text')
  await handleOf(client, 'rw', 'file')
  const ro = [ask.root, ask.lookup('ro')]
  const refused = [
    ask.open(client.clientId, 'file'),
    ask.open(client.clientId, 'new', { create: true, access: 1 }),
    ask.remove('file'),
    ask.makeDirectory('dir'),
  ]
  for (const refusal of refused) {
    const reply = await after(client, ro, refusal)
    assert.throws(() => result(reply, refusal.operation), /ROFS/)
  }
  const file = await handleOf(client, 'ro', 'file')
  const written = await after(client, [ask.handle(file)], ask.write(anonymous, 'no'))
  assert.throws(() => result(written, operation.WRITE), /ROFS/)
  assert.equal(await readAll(client, file), 'text')
  const moved = await after(client, [...rw, ask.save, ...ro], ask.rename('file', 'other'))
  assert.throws(() => result(moved, operation.RENAME), /ROFS/)
})

test('whoever opens a file for reading empties it only where it may be written', async () => {
  await using at = await served()
  writeFileSync(join(at.share, 'file'), 'content', { mode: 0o644 })
  const how = { create: true, access: 1, empty: true }
  const readOnly = await after(at.client, [ask.root, ask.lookup('ro')], ask.open(at.client.clientId, 'file', how))
  assert.throws(() => result(readOnly, operation.OPEN), /ROFS/)
  assert.equal(readFileSync(join(at.share, 'file'), 'utf8'), 'content')
  if (process.geteuid?.() === 0) {
    const other = { uid: 1000, gid: 1000 }
    const refused = await after(at.client, rw, ask.open(at.client.clientId, 'file', how), other)
    assert.throws(() => result(refused, operation.OPEN), /ACCESS/)
    assert.equal(readFileSync(join(at.share, 'file'), 'utf8'), 'content')
  }
  await openFile(at.client, 'file', how)
  assert.equal(readFileSync(join(at.share, 'file'), 'utf8'), '')
})

test('a call that comes again is answered again and not done again', async () => {
  await using own = await served()
  const { client, share } = own
  const steps = [...rw, ask.makeDirectory('once')]
  const first = await client.ask(steps)
  const again = await client.repeat(steps)
  assert.deepEqual(again.rest(), first.rest())
  assert.deepEqual(readdirSync(share), ['once'])
  const third = await after(client, rw, ask.makeDirectory('once'))
  assert.throws(() => result(third, operation.CREATE), /EXIST/)
})

test('a lock of one client is in the way of another, until its file is closed', async () => {
  await using own = await served()
  const { client: one, port } = own
  await using two = await ExampleClient.connect(port, 'other')
  const opens = [await openFile(one, 'file'), await openFile(two, 'file')] as const
  const handle = await handleOf(one, 'rw', 'file')
  const locked = (client: ExampleClient, open: Buffer, start: number) =>
    after(client, [ask.handle(handle)], ask.lock(client.clientId, open, 'process', { start, length: 10 }))
  result(await locked(one, opens[0], 0), operation.LOCK)
  const denied = await locked(two, opens[1], 5)
  assert.throws(() => result(denied, operation.LOCK), /DENIED/)
  assert.deepEqual([denied.u64(), denied.u64()], [0n, 10n])
  result(await locked(two, opens[1], 10), operation.LOCK)
  result(await after(one, [ask.handle(handle)], ask.close(opens[0])), operation.CLOSE)
  result(await locked(two, opens[1], 0), operation.LOCK)
})

test('a client that starts anew holds nothing any more', async () => {
  await using own = await served()
  const { client, port } = own
  const open = await openFile(client, 'file')
  const handle = await handleOf(client, 'rw', 'file')
  const lock = ask.lock(client.clientId, open, 'process', { start: 0, length: 10 })
  result(await after(client, [ask.handle(handle)], lock), operation.LOCK)
  await client.makeSession('test', Buffer.alloc(8, 1))
  await assert.rejects(readAll(client, handle, open), /BAD_STATEID/)
  await using two = await ExampleClient.connect(port, 'other')
  const second = await openFile(two, 'file')
  const free = ask.lock(two.clientId, second, 'process', { start: 0, length: 10 })
  result(await after(two, [ask.handle(handle)], free), operation.LOCK)
})

test('a large directory is read in parts, each name once, while entries come and go', async () => {
  await using own = await served()
  const { client, share } = own
  const names = Array.from({ length: 3000 }, (_, index) => `file-${index}`)
  for (const name of names) writeFileSync(join(share, name), '')
  const seen: string[] = []
  for (let cookie = 0n, end = false; !end; ) {
    const reply = await after(client, rw, ask.readDirectory(cookie))
    result(reply, operation.READDIR)
    reply.u64()
    while (reply.bool()) {
      cookie = reply.u64()
      seen.push(reply.name(255))
      reply.bitmap()
      reply.opaque(100)
    }
    end = reply.bool()
    writeFileSync(join(share, `new-${seen.length}`), '')
    rmSync(join(share, seen[0] ?? ''), { force: true })
  }
  const old = seen.filter((name) => name.startsWith('file-'))
  assert.equal(new Set(old).size, old.length)
  assert.deepEqual(old.sort(), names.sort())
})

test('the change attribute changes with every change, whoever makes it', async () => {
  await using own = await served()
  const { client, share } = own
  const root = await handleOf(client, 'rw')
  const seen = new Set([await change(client, root)])
  for (let turn = 0; turn < 5; turn++) {
    result(await after(client, rw, ask.makeDirectory(`ours-${turn}`)), operation.CREATE)
    seen.add(await change(client, root))
  }
  assert.equal(seen.size, 6)
  writeFileSync(join(share, 'theirs'), '')
  const soon = await change(client, root)
  assert.ok(!seen.has(soon))
  await new Promise((resolve) => setTimeout(resolve, 40))
  assert.notEqual(await change(client, root), soon, 'a second change in the same tick could not be told otherwise')
})

test('permissions are kept where the server runs as root', { skip: process.geteuid?.() !== 0 }, async () => {
  await using own = await served()
  const { client, share } = own
  const user = { uid: 1234, gid: 1234 }
  writeFileSync(join(share, 'file'), 'text', { mode: 0o600 })
  for (const step of [
    ask.remove('file'),
    ask.makeDirectory('dir'),
    ask.open(user.gid ? client.clientId : 0n, 'file'),
  ]) {
    const reply = await after(client, rw, step, user)
    assert.throws(() => result(reply, step.operation), /ACCESS/)
  }
})

test('nothing that a guest sends ends the server', async () => {
  await using own = await served()
  const { client, port } = own
  const handle = await handleOf(client, 'rw')
  for (let turn = 0; turn < 2000; turn++) {
    const noise = randomBytes((turn % 60) * 4)
    const number = turn % 60
    await client.ask([ask.handle(handle), step(number, (args) => args.fixed(noise))])
  }
  for (const record of [Buffer.alloc(4, 0xff), Buffer.from('GET / HTTP/1.1\r\n\r\n'), randomBytes(5000)]) {
    await using other = await ExampleClient.connect(port, 'hostile')
    other.socket.write(record)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  assert.equal((await handleOf(client, 'rw')).length, 16)
})
