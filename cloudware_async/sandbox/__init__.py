"""A stand-in for the Cloudware service, for development and tests: a real server, and nobody is texted.

It speaks the documented API (`_app`), remembers every text in SQLite (`_storage`), posts inbound ones to your
webhook (`_webhook`), and runs in a thread of its own (`_server`):

    async with Sandbox() as sandbox, sandbox.client() as cloudware:
        await cloudware.send("2348012345678", "Hello")
        assert sandbox.messages[0].message == "Hello"

What the vendor does not document it decides, and `_app` lists: do not rely on that with the real service.
"""

try:
    from cloudware_async.sandbox._sandbox import AppOptions, Sandbox, SandboxOptions, create_app, serve
except ImportError as error:
    package = (error.name or "").partition(".")[0]
    if package not in {"starlette", "uvicorn"}:
        raise
    raise ImportError(f"the sandbox needs {package}: pip install 'cloudware-async[sandbox]'", name=package) from error

__all__ = ["AppOptions", "Sandbox", "SandboxOptions", "create_app", "serve"]
