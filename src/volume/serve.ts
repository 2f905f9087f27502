import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type Socket, type Server as SocketServer } from 'node:net'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Server } from './call.ts'
import { Clients } from './client.ts'
import { compound } from './compound.ts'
import type { Dial } from './dial.ts'
import type { Export } from './inode.ts'
import { Listings } from './listing.ts'
import { type Owner, RootPermissions, UserPermissions } from './permission.ts'
import { answerCalls } from './rpc.ts'
import { States } from './states.ts'
import { Tree } from './tree.ts'

export interface VolumeServerOptions {
  exports: readonly Export[]
  /** Where guests connect to. */
  listen?: ({ unix: string } | { host: string; port: number })[]
  /** Connect to sockets of others; called again and again, as a guest comes in through one connection only. */
  dial?: Dial[]
  /** Whose files the server's own user's are in a guest, where the server is not root. Root's unless said. */
  owner?: Owner
  /** False: changes are as durable as this host's page cache, and fsync in a guest waits for nothing. */
  durable?: boolean
  signal?: AbortSignal
}

export interface VolumeServer extends AsyncDisposable {
  /** Serves one more connection, until it ends. */
  serve(stream: Duplex): Promise<void>
  /** From now on the guest comes in there, and no longer where it did: clients, open files and locks stay. */
  redial(dial: readonly Dial[]): void
  /** The ports that were given to those listeners which asked for port 0, in their order. */
  ports: number[]
}

/** Serves directories to guests over NFS 4.1. Resolves when it listens. */
export async function serveVolumes(options: VolumeServerOptions): Promise<VolumeServer> {
  const server = newServer(options)
  const streams = new Set<Duplex>()
  const serve = async (stream: Duplex) => {
    if (streams.size >= maxConnections) return void stream.destroy()
    streams.add(stream)
    await answerCalls(stream, (args, caller) => compound(server, args, caller))
    streams.delete(stream)
  }
  const stop = new AbortController()
  const listeners = await Promise.all((options.listen ?? []).map((address) => listen(address, serve)))
  let moved = new AbortController()
  const startDialing = (dials: readonly Dial[]) =>
    dials.map((dial) => keepDialing(dial, serve, AbortSignal.any([stop.signal, moved.signal])))
  let dials = startDialing(options.dial ?? [])
  const redial = (anew: readonly Dial[]) => {
    moved.abort()
    moved = new AbortController()
    dials = [...dials, ...startDialing(anew)]
  }
  const sweep = setInterval(() => server.tree.descriptors.sweep(), 2000).unref()

  const close = async () => {
    stop.abort()
    clearInterval(sweep)
    for (const listener of listeners) listener.close()
    for (const stream of streams) stream.destroy()
    await Promise.all(dials)
    while (streams.size > 0) await sleep(1)
    for (const client of server.clients.all()) server.clients.remove(client)
    server.tree.close()
  }
  let closed: Promise<void> | undefined
  const dispose = () => {
    closed ??= close()
    return closed
  }
  options.signal?.addEventListener('abort', () => void dispose(), { once: true })
  const ports = listeners.flatMap((listener) => {
    const address = listener.address()
    return address !== null && typeof address === 'object' ? [address.port] : []
  })
  return { serve, redial, ports, [Symbol.asyncDispose]: dispose }
}

/** A guest's kernel makes one for all its volumes. */
const maxConnections = 8

function newServer({ exports, owner = { uid: 0, gid: 0 }, durable = true }: VolumeServerOptions): Server {
  const tree = new Tree(exports)
  const sessions: Server['sessions'] = new Map()
  const clients = new Clients((client) => {
    states.drop(client)
    for (const id of client.sessions.keys()) sessions.delete(id)
  })
  const states = new States(tree, (client) => clients.remove(client))
  const permissions = process.geteuid?.() === 0 ? new RootPermissions(tree) : new UserPermissions(tree, owner)
  const listings = new Listings(tree)
  const names = { name: Buffer.from(`nestvm-${randomBytes(12).toString('hex')}`), writeVerifier: randomBytes(8) }
  return { tree, permissions, clients, states, sessions, listings, ...names, durable }
}

async function listen(
  address: { unix: string } | { host: string; port: number },
  serve: (stream: Duplex) => Promise<void>,
): Promise<SocketServer> {
  const server = createServer((socket: Socket) => {
    socket.setNoDelay()
    void serve(socket)
  })
  if ('unix' in address) server.listen(address.unix)
  else server.listen(address.port, address.host)
  await once(server, 'listening')
  return server
}

/**
 * QEMU listens there for as long as it runs, and hands on as one stream whatever connections a guest makes one after
 * the other. When it was not understood, a call may have begun anywhere in it: what comes is thrown away until the
 * client waits for an answer, so that no part of a file's content is ever taken for a call.
 */
async function keepDialing(dial: Dial, serve: (stream: Duplex) => Promise<void>, signal: AbortSignal): Promise<void> {
  for (let served = false; !signal.aborted; ) {
    const stream = await dial(signal).catch(() => undefined)
    if (stream) {
      stream.on('error', () => {})
      signal.addEventListener('abort', () => stream.destroy(), { once: true })
      if (signal.aborted) stream.destroy()
      if (served) await silence(stream, signal)
      served = true
      await serve(stream)
    }
    await sleep(200, undefined, { signal }).catch(() => {})
  }
}

const silentMs = 2000

async function silence(stream: Duplex, signal: AbortSignal): Promise<void> {
  let lastAt = performance.now()
  const heard = () => {
    lastAt = performance.now()
  }
  stream.on('data', heard)
  while (!signal.aborted && !stream.destroyed && performance.now() - lastAt < silentMs) {
    await sleep(100, undefined, { signal }).catch(() => {})
  }
  stream.off('data', heard)
  stream.pause()
}
