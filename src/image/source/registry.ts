import { readFile } from 'node:fs/promises'
import { NestvmError } from '../../store/error.ts'
import { mostDocumentBytes, tooLongDocument } from '../limits.ts'
import type { Document } from '../manifest.ts'
import type { RegistryReference } from '../reference.ts'
import { RegistryClient } from '../registry/client.ts'
import { downloadBlob } from '../registry/download.ts'
import { endpointsFor } from '../registry/settings.ts'
import { selectManifest, toSource } from './select.ts'
import type { Source, SourceRequest } from './source.ts'

/** An image in a registry, or in the first of its mirrors that has it. */
export async function openRegistry(
  reference: RegistryReference,
  request: SourceRequest,
): Promise<AsyncDisposable & { source: Source }> {
  const { client, document } = await findManifest(reference, request)
  try {
    const source = await openImage(client, document, request)
    return { source, [Symbol.asyncDispose]: () => client[Symbol.asyncDispose]() }
  } catch (error) {
    await client[Symbol.asyncDispose]()
    throw error
  }
}

/** What mirrors answer does not matter as long as another place has the image. */
async function findManifest(
  reference: RegistryReference,
  request: SourceRequest,
): Promise<{ client: RegistryClient; document: Document }> {
  const endpoints = await endpointsFor(reference)
  for (const [index, endpoint] of endpoints.entries()) {
    const client = new RegistryClient(endpoint, reference, request)
    try {
      return { client, document: await client.manifest(reference.digest ?? reference.tag ?? 'latest') }
    } catch (error) {
      await client[Symbol.asyncDispose]()
      request.signal?.throwIfAborted()
      if (index === endpoints.length - 1) throw error
    }
  }
  throw new NestvmError('IMAGE_NOT_FOUND', `there is no registry for ${request.name}`)
}

async function openImage(client: RegistryClient, start: Document, request: SourceRequest): Promise<Source> {
  const get = async ({ digest, mediaType }: { digest: string; mediaType: string }) => {
    const document = await client.manifest(digest)
    return { ...document, mediaType: document.mediaType || mediaType }
  }
  const { manifest, digest } = await selectManifest(start, get, request)
  if (manifest.config.size > mostDocumentBytes) throw tooLongDocument('the config')
  const config = await readFile(await downloadBlob(client, manifest.config, { signal: request.signal }))
  const layers = manifest.layers.map((layer) => ({
    size: layer.size,
    file: (signal: AbortSignal) => downloadBlob(client, layer, { progress: request.progress, signal }),
  }))
  return toSource({ manifestDigest: digest, config }, layers, request)
}
