import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import * as z from 'zod'
import { NestvmError } from '../store/error.ts'
import { isAlive, processIdentity, processIdentitySchema } from '../store/process.ts'
import { readJson, writeFileAtomic } from '../store/write.ts'
import { dialSocket } from './dial.ts'
import { serveVolumes } from './serve.ts'

const socketSchema = z.strictObject({ unix: z.string() })

/** What one volume server's process is told by a file. */
const volumeServerSchema = z.strictObject({
  exports: z.array(
    z.strictObject({
      name: z.string().regex(/^[A-Za-z0-9._-]{1,64}$/),
      dir: z.string().startsWith('/'),
      readOnly: z.boolean(),
    }),
  ),
  listen: z.array(z.union([socketSchema, z.strictObject({ host: z.string(), port: z.int().min(0) })])).default([]),
  /** Sockets of this host, or of the one that is named. */
  dial: z.array(z.strictObject({ unix: z.string(), host: z.string().optional() })).default([]),
  owner: z.strictObject({ uid: z.int().min(0), gid: z.int().min(0) }).optional(),
  durable: z.boolean().default(true),
  /** It ends with this process, and when this directory is gone. */
  engine: processIdentitySchema.optional(),
  machineDir: z.string().startsWith('/').optional(),
  /** Where it writes its own process identity once it listens, for whoever cleans up. */
  identity: z.string().startsWith('/'),
})

type VolumeServerSettings = z.infer<typeof volumeServerSchema>

export type VolumeServerFile = z.input<typeof volumeServerSchema>

/**
 * Serves what the file says until the guest that it is for is gone, or the signal comes. When the guest has moved, the
 * file is written anew: then it dials, and lives for the engine, as the file says.
 */
export async function runVolumeServer(path: string, signal: AbortSignal): Promise<void> {
  const first = await readJson(path, volumeServerSchema)
  if (!first) throw new NestvmError('NOT_FOUND', `there is no ${path}`)
  let file: VolumeServerSettings = first
  // Guests say which mode a file gets; their own umask is in it.
  process.umask(0)
  await using server = await serveVolumes({ ...file, dial: file.dial.map(dialSocket), signal })
  await writeFileAtomic(file.identity, JSON.stringify(processIdentity(process.pid)))
  const wanted = ({ engine, machineDir }: VolumeServerSettings) =>
    (!engine || isAlive(engine)) && (machineDir === undefined || existsSync(machineDir))
  while (!signal.aborted) {
    const now: VolumeServerSettings = (await readJson(path, volumeServerSchema).catch(() => undefined)) ?? file
    if (!isDeepStrictEqual(now.dial, file.dial)) server.redial(now.dial.map(dialSocket))
    file = now
    if (!wanted(file)) return
    await sleep(1000, undefined, { signal }).catch(() => {})
  }
}
