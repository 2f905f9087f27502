import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { test } from 'node:test'
import { measureService, parsePing } from './services.ts'

const amounts = { megabytes: 1, roundTrips: 3 }

test('the mean of ping is read', () => {
  const output = `PING 10.0.0.5 (10.0.0.5): 56 data bytes

--- 10.0.0.5 ping statistics ---
50 packets transmitted, 50 packets received, 0% packet loss
round-trip min/avg/max = 0.123/1.456/2.789 ms
`
  assert.equal(parsePing(output), 1.456)
  assert.equal(parsePing('50 packets transmitted, 0 packets received, 100% packet loss\n'), undefined)
})

test('round trips and both directions are measured', async () => {
  const signal = new AbortController().signal
  const echo = await peer((socket) => socket.pipe(socket))
  assert.ok((await measureService('echo', echo, amounts, signal)) > 0)
  const give = await peer((socket) => socket.end(Buffer.alloc(1 << 20)))
  assert.ok((await measureService('give', give, amounts, signal)) > 0)
  const take = await peer((socket) => socket.resume().once('end', () => socket.end('done\n')))
  assert.ok((await measureService('take', take, amounts, signal)) > 0)
})

test('a connection that ends too soon is no measurement', async () => {
  const signal = new AbortController().signal
  const short = await peer((socket) => socket.end('little'))
  await assert.rejects(measureService('give', short, amounts, signal), { code: 'BENCH_FAILED' })
})

async function peer(act: (socket: Socket) => unknown): Promise<Socket> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    server.close()
    act(socket)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  assert.ok(address !== null && typeof address === 'object')
  return connect(address.port, address.address)
}
