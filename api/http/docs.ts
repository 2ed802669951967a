import swaggerUi from '@fastify/swagger-ui'
import type { Api } from '../app.ts'

/** Everything comes from this process, so that it works without the internet; nothing else may be loaded. */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')

/** The document, browsable at /docs. */
export async function docsRoutes(api: Api): Promise<void> {
  await api.register(swaggerUi, {
    routePrefix: '/docs',
    staticCSP: CONTENT_SECURITY_POLICY,
    theme: { title: 'Tidemark API' },
    // Nothing but the document: no bar to explore others.
    uiConfig: {
      layout: 'BaseLayout',
      docExpansion: 'list',
      deepLinking: true,
      defaultModelsExpandDepth: 0,
      persistAuthorization: false,
    },
  })
}
