import { once } from 'node:events'
import { createServer, request } from 'node:http'
import { connect } from 'node:net'

export interface Proxy extends AsyncDisposable {
  /** `http://127.0.0.1:PORT` */
  url: string
  /** Each request as it came: `CONNECT HOST:PORT`, or `GET http://...`. */
  asked: string[]
}

/** A proxy to this host's loopback, whatever name is asked for; `password` is that of `user`. */
export async function startProxy(password?: string): Promise<Proxy> {
  const asked: string[] = []
  const expected = password && `Basic ${Buffer.from(`user:${password}`).toString('base64')}`
  const server = createServer((incoming, response) => {
    asked.push(`${incoming.method} ${incoming.url}`)
    const { pathname, search, port } = new URL(incoming.url ?? '')
    const options = { port, path: pathname + search, method: incoming.method, headers: incoming.headers }
    const forwarded = request({ host: '127.0.0.1', ...options }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(response)
    })
    forwarded.on('error', () => response.destroy())
    incoming.pipe(forwarded)
  })
  server.on('connect', (incoming, client) => {
    asked.push(`CONNECT ${incoming.url}`)
    if (incoming.headers['proxy-authorization'] !== expected) {
      client.end('HTTP/1.1 407 Proxy Authentication Required\r\n\r\n')
      return
    }
    const target = connect(Number(incoming.url?.split(':').at(-1)), '127.0.0.1', () => {
      client.write('HTTP/1.1 200 Connection established\r\n\r\n')
      target.pipe(client).pipe(target)
    })
    target.on('error', () => client.destroy())
    client.on('error', () => target.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  return {
    url: `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`,
    asked,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      server.close()
    },
  }
}
