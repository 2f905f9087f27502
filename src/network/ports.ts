import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer, isIPv4 } from 'node:net'
import * as z from 'zod'
import { errorCode } from '../store/errno.ts'
import { NestvmError } from '../store/error.ts'

/** A port of the host that leads to one of a guest. */
export const portSchema = z.object({
  protocol: z.enum(['tcp', 'udp']),
  /** IPv4. */
  hostAddress: z.string(),
  hostPort: z.int().min(1).max(65_535),
  guestPort: z.int().min(1).max(65_535),
  /** The port of the level 1 guest that a relay leads from, for guests that have one. */
  relay: z.int().min(1).max(65_535).optional(),
})

export type PublishedPort = z.infer<typeof portSchema>

/** `[IP:]HOST:GUEST[/tcp|udp]`; on the loopback unless an address is given. Throws `BAD_PORT`. */
export function parsePort(text: string): PublishedPort {
  const [, address = '127.0.0.1', host, guest, protocol = 'tcp'] =
    /^(?:([\d.]+):)?(\d{1,5}):(\d{1,5})(?:\/(tcp|udp))?$/.exec(text) ?? []
  const parsed = portSchema.safeParse({
    protocol,
    hostAddress: address,
    hostPort: Number(host),
    guestPort: Number(guest),
  })
  if (parsed.success && isIPv4(address)) return parsed.data
  throw new NestvmError('BAD_PORT', `${JSON.stringify(text)} does not publish a port`, {
    hint: 'write [IP:]HOST:GUEST[/udp], for example 8080:80',
    exitStatus: 2,
  })
}

/** Throws `PORT_TAKEN` where another program has it, or `PORT_FORBIDDEN` where users may not. */
export async function checkPort(port: PublishedPort): Promise<void> {
  const { protocol, hostAddress, hostPort } = port
  try {
    if (protocol === 'tcp') {
      const server = createServer().listen(hostPort, hostAddress)
      await once(server, 'listening')
      server.close()
    } else {
      const socket = createSocket('udp4').bind(hostPort, hostAddress)
      await once(socket, 'listening')
      socket.close()
    }
  } catch (error) {
    throw notPublished(port, errorCode(error) === 'EACCES' ? 'PORT_FORBIDDEN' : 'PORT_TAKEN', error)
  }
}

/** Throws `PORT_TAKEN` for one that another guest publishes: to undo the attempt would take it from that guest. */
export function checkUnpublished(ports: readonly PublishedPort[], others: readonly PublishedPort[]): void {
  const taken = ports.find((port) => others.some((other) => hostEnd(other) === hostEnd(port)))
  if (taken) throw notPublished(taken, 'PORT_TAKEN')
}

/** As QEMU names a published port. */
export function hostEnd({ protocol, hostAddress, hostPort }: PublishedPort): string {
  return `${protocol}:${hostAddress}:${hostPort}`
}

export function notPublished(
  { protocol, hostAddress, hostPort }: PublishedPort,
  code: 'PORT_TAKEN' | 'PORT_FORBIDDEN',
  cause?: unknown,
): NestvmError {
  const why = code === 'PORT_TAKEN' ? 'is taken, or its address is not of this host' : 'is for root only'
  return new NestvmError(code, `the ${protocol} port ${hostPort} of ${hostAddress} ${why}`, {
    hint: 'publish on another port: -p HOST:GUEST',
    details: { protocol, hostAddress, hostPort },
    cause,
  })
}
