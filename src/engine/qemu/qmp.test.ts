import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeQemu, type QmpRequest } from './example-qemu.ts'
import { Qmp } from './qmp.ts'

test('the session begins after the greeting, with the negotiation', async () => {
  const qemu = new FakeQemu()
  const opening = Qmp.open(qemu.client)
  await new Promise((resolve) => setTimeout(resolve, 20))
  assert.deepEqual(qemu.requests, [])
  qemu.greet()
  await using _ = await opening
  assert.deepEqual(
    qemu.requests.map(({ execute }) => execute),
    ['qmp_capabilities'],
  )
})

test('a command goes out with its arguments, and what it returns comes back', async () => {
  const qemu = new FakeQemu(({ id, arguments: given }, self) => self.say({ return: given, id })).greet()
  await using qmp = await Qmp.open(qemu.client)
  assert.deepEqual(await qmp.execute('echo', { a: 1, b: ['ü'] }), { a: 1, b: ['ü'] })
})

test('replies that come out of order, in pieces and between events reach their commands', async () => {
  const held: number[] = []
  const qemu = new FakeQemu(({ id }, self) => {
    held.push(id)
    if (held.length < 3) return
    self.say({ event: 'STOP', timestamp: { seconds: 0, microseconds: 0 } })
    const text = held.reverse().map((waiting) => `${JSON.stringify({ return: waiting, id: waiting })}\r\n`)
    for (const character of text.join('')) self.sayText(character)
    self.say({ return: 'nobody asked', id: 999 })
  }).greet()
  await using qmp = await Qmp.open(qemu.client)
  const replies = await Promise.all(['a', 'b', 'c'].map((command) => qmp.execute(command)))
  assert.deepEqual(
    replies,
    qemu.requests.slice(1).map(({ id }) => id),
  )
})

test("an error has QEMU's own words, and the session goes on", async () => {
  const qemu = new FakeQemu(({ id, execute }, self) =>
    self.say(execute === 'bad' ? { error: { class: 'GenericError', desc: 'no such thing' }, id } : { return: 'x', id }),
  ).greet()
  await using qmp = await Qmp.open(qemu.client)
  await assert.rejects(qmp.execute('bad'), { code: 'QMP_ERROR', message: /refused bad: no such thing/ })
  assert.equal(await qmp.human('info'), 'x')
  assert.deepEqual(qemu.requests.at(-1)?.arguments, { 'command-line': 'info' })
})

test('when QEMU goes away, all that waits ends, and so does what comes later', async () => {
  const qemu = new FakeQemu((_, self) => self.close()).greet()
  await using qmp = await Qmp.open(qemu.client)
  const waiting = [qmp.execute('a'), qmp.execute('b')]
  for (const command of waiting) await assert.rejects(command, { code: 'ENGINE_GONE' })
  await assert.rejects(qmp.execute('c'), { code: 'ENGINE_GONE' })
})

test('a connection that breaks is an error of the session, not of the process', async () => {
  const qemu = new FakeQemu().greet()
  await using qmp = await Qmp.open(qemu.client)
  const waiting = qmp.execute('a')
  qemu.client.destroy(new Error('ECONNRESET'))
  await assert.rejects(waiting, { code: 'ENGINE_GONE' })
})

test('whoever speaks something else is not QEMU', async () => {
  for (const text of ['SSH-2.0-dropbear\r\n', '[]\n', '{"QMP"\n', '{"id":"x"}\n']) {
    const qemu = new FakeQemu().sayText(text)
    await assert.rejects(Qmp.open(qemu.client), { code: 'ENGINE_GONE' }, text)
    assert.ok(qemu.client.destroyed)
  }
})

test('a session that is refused does not keep the connection', async () => {
  const qemu = new FakeQemu()
  qemu.client._write = (chunk, _, done) => {
    const { id }: QmpRequest = JSON.parse(String(chunk))
    qemu.say({ error: { class: 'GenericError', desc: 'another one has it' }, id })
    done()
  }
  await assert.rejects(Qmp.open(qemu.greet().client), { code: 'QMP_ERROR' })
  assert.ok(qemu.client.destroyed)
})
