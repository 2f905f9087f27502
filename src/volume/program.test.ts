import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { processIdentity, processIdentitySchema } from '../store/process.ts'
import { readJson, writeFileAtomic } from '../store/write.ts'
import { runVolumeServer, type VolumeServerFile } from './program.ts'

test('a volume server says who it is, and ends when its machine is gone', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'nestvm-volume-'))
  const machineDir = join(dir, 'machine')
  mkdirSync(machineDir)
  const identity = join(dir, 'identity.json')
  const file: VolumeServerFile = {
    exports: [{ name: 'v0', dir, readOnly: true }],
    listen: [{ unix: join(dir, 'socket') }],
    machineDir,
    identity,
  }
  writeFileSync(join(dir, 'server.json'), JSON.stringify(file))
  const running = runVolumeServer(join(dir, 'server.json'), new AbortController().signal)
  while (!(await readJson(identity, processIdentitySchema))) await new Promise((resolve) => setTimeout(resolve, 10))
  assert.deepEqual(await readJson(identity, processIdentitySchema), processIdentity(process.pid))
  rmSync(machineDir, { recursive: true })
  await running
  rmSync(dir, { recursive: true })
})

test('it dials where its file says, and lets go of where it dialled when the file says another place', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'nestvm-volume-'))
  const places = await Promise.all(
    ['one', 'two'].map(async (name) => {
      const unix = join(dir, name)
      const server = createServer().listen(unix)
      await once(server, 'listening')
      return { unix, server, came: once(server, 'connection') }
    }),
  )
  const [one, two] = places
  assert.ok(one && two)
  const write = async ({ unix }: { unix: string }) => {
    const file: VolumeServerFile = { exports: [], dial: [{ unix }], identity: join(dir, 'identity.json') }
    await writeFileAtomic(join(dir, 'server.json'), JSON.stringify(file))
  }
  await write(one)
  const stop = new AbortController()
  const running = runVolumeServer(join(dir, 'server.json'), stop.signal)
  const [first]: Socket[] = await one.came
  await write(two)
  await two.came
  if (!first?.closed) await once(first?.resume() ?? one.server, 'close')
  stop.abort()
  await running
  for (const { server } of places) server.close()
  rmSync(dir, { recursive: true })
})

test('a file that says something else is refused', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'nestvm-volume-'))
  writeFileSync(join(dir, 'server.json'), JSON.stringify({ exports: [{ name: '../x', dir: 'relative' }] }))
  await assert.rejects(runVolumeServer(join(dir, 'server.json'), new AbortController().signal), { code: 'BAD_RECORD' })
  rmSync(dir, { recursive: true })
})
